"""A few small virtual patients, Snakemake on the project's workflow, and what `tskd distil` is given."""

import json
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.workflow.distil_calls import steps
from tskd.data import prepare_phantom, write
from tskd.files import write_json
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


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A prepared data set and a teacher's run, as far as `tskd distil` looks at them."""
    data = {
        "name": "study", "modality": "MR", "channels": 1, "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "training": [{"image": "a.png", "label": "b.png", "group": "1", "case": "a"}], "validation": [], "test": [],
    }  # fmt: skip
    write(tmp_path / "dataset.json", data)
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / "teacher" / "models").mkdir(parents=True)
    (tmp_path / "teacher/models/model.pt").write_bytes(b"weights")
    (tmp_path / "teacher/versions.json").write_text(json.dumps({"settings": {"vfm": "mobile_sam", "image_size": 256}}))
    return tmp_path


@pytest.fixture
def failing() -> set[str]:
    """Last part of the `output_dir` of steps that are to fail."""
    return set()


@pytest.fixture
def recorded(monkeypatch, failing) -> list[list[str]]:
    """The commands that would have been run."""
    commands: list[list[str]] = []

    def follow(command: list[str], *_: Any) -> int:
        commands.append(command[command.index("--") + 1 :])
        return int(steps(commands[-1:])[0] in failing)

    monkeypatch.setattr("tskd.workflow.distil.follow_command", follow)
    monkeypatch.setattr("tskd.workflow.warm.server", lambda *_: nullcontext({}))
    monkeypatch.setattr("tskd.workflow.distil.get_weights", lambda _: None)
    return commands


@pytest.fixture
def committee(study: Path) -> Path:
    """The study with a student's run and a MONAI bundle beside the foundation model's run."""
    for name in ("student", "bundle"):
        (study / name / "models").mkdir(parents=True)
        (study / name / "models/model.pt").write_bytes(name.encode())
    settings = {"image_size": 128, "num_labelled": None}
    write_json(study / "student/versions.json", {"settings": settings, "config": ["train.json", "lite_unet.json"]})
    (study / "bundle/configs").mkdir()
    write_json(study / "bundle/configs/inference.json", {"image_size": 64, "network_def": {"_target_": "UNet"}})
    return study
