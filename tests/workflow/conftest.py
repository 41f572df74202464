"""A few small virtual patients, and Snakemake on the project's workflow."""

import os
import subprocess
import sys
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
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile"), "--configfile"]
        return subprocess.run(
            [*command, str(study), "--rerun-triggers", "mtime", "params", "input", "--cores", "2", *options],
            cwd=tmp_path, capture_output=True, text=True, timeout=1800,
            env={**os.environ, "OMP_NUM_THREADS": "1", **forked.environment()},
        )  # fmt: skip

    return run
