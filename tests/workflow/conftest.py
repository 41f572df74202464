"""A few small virtual patients, and Snakemake on the project's workflow."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forked
from tskd.data import prepare_phantom
from tskd.workflow.schema import WORKFLOW

Snakemake = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """dataset.json of two patients for training, one for validation and one for test."""
    options = {"image_size": 64, "num_slices": 5, "num_validation": 1, "num_test": 1}
    return prepare_phantom(tmp_path / "cohort", num_patients=4, seed=1, **options)


@pytest.fixture
def snakemake(tmp_path: Path) -> Snakemake:
    """Runs Snakemake on a study file in `tmp_path`; options come after the file."""

    def run(study: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["snakemake", "--snakefile", str(WORKFLOW / "Snakefile"), "--configfile", str(study)]
        command += ["--rerun-triggers", "mtime", "params", "input", "--cores", "2", *options]
        return forked.run_module(command, cwd=tmp_path)

    return run
