"""Every stage in float32 and under autocast to bfloat16, which runs (slowly) on any processor."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.bundles.conftest import run_configs
from tskd.networks import build_sam
from tskd.state import read_tensors

PRECISIONS = [None, "bfloat16"]
TOY = {
    "image_size": 64, "max_epochs": 1, "iterations_per_epoch": 2, "batch_size": 2, "warmup_steps": 1, "val_interval": 1
}  # fmt: skip
TEACHER = {**TOY, "vfm": "mobile_sam", "pretrained": "@network_def", "num_labelled": 4}


def numbers(path: Path, name: str, value: str) -> list[float]:
    """The column `value` of the rows of a CSV with that `name`."""
    with path.open(newline="") as file:
        return [float(row[value]) for row in csv.DictReader(file) if name in row.values() and row[value]]


@pytest.fixture(scope="module", params=PRECISIONS)
def soft_labels(
    request: pytest.FixtureRequest, cohort: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str | None, Path]:
    """Precision, and the folder of a teacher trained and asked for soft labels in it."""
    folder = tmp_path_factory.mktemp("precision")
    teacher = {
        **TEACHER, "dataset_dir": str(cohort), "amp_dtype": request.param, "model_dir": str(folder / "teacher/models")
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.excepthook", sys.excepthook)
        run_configs("teacher_segmentation", "train", **teacher, output_dir=str(folder / "teacher"))
        run_configs(
            "teacher_segmentation", "train", "soft_labels", **teacher, soft_labels=str(folder / "soft"),
            output_dir=str(folder),
        )  # fmt: skip
    return request.param, folder


def test_teacher_and_soft_labels(soft_labels: tuple[str | None, Path]) -> None:
    amp, folder = soft_labels
    state = read_tensors(folder / "teacher/models/model.pt")
    build_sam("mobile_sam", 5, 64).load_state_dict(state)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    assert json.loads((folder / "soft/manifest.json").read_text())["autocast"] == amp
    arrays = load_file(next((folder / "soft").glob("*.safetensors")))
    assert {array.dtype for array in arrays.values()} == {torch.float16}
    assert all(array.isfinite().all() for array in arrays.values())


@pytest.mark.parametrize("overlay", ["basic_unet", "flexible_unet"])  # without and with batch norm
def test_student_is_distilled_validated_and_evaluated(
    soft_labels: tuple[str | None, Path], overlay: str, cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    amp, folder = soft_labels
    run = {
        **TOY, "dataset_dir": str(cohort), "num_labelled": 4, "amp_dtype": amp, "model_dir": str(tmp_path / "models"),
        "output_dir": str(tmp_path),
    }  # fmt: skip
    soft = {"soft_labels": str(folder / "soft"), "teacher_model": str(folder / "teacher/models/model.pt")}
    run_bundle("student_segmentation", "train", "distill", overlay, **run, **soft, labelled_weight=0.5)
    assert len(numbers(tmp_path / "train_log.csv", "loss", "value")) >= 1
    assert len(numbers(tmp_path / "train_log.csv", "validation_val_mean_dice", "value")) == 1
    state = read_tensors(tmp_path / "models/model.pt")
    assert all(value.isfinite().all() for value in state.values())
    statistics = [value for name, value in state.items() if name.endswith("running_mean")]
    assert bool(statistics) == (overlay == "flexible_unet")
    assert all(value.dtype == torch.float32 for value in statistics)
    assert not statistics or any(value.abs().max() > 0 for value in statistics)  # they were recomputed
    run_bundle("student_segmentation", "train", overlay, "evaluate", **run, method="tskd")
    assert len(numbers(tmp_path / "metrics.csv", "dice", "value")) >= 1


DIFFUSION = {
    "image_size": 16, "batch_size": 2, "iterations_per_epoch": 2, "max_epochs": 1, "warmup_steps": 1, "val_interval": 1,
    "val_images": 2, "preview_interval": 1, "steps": 2, "network_def__unet__block_out_channels": [16, 32],
    "network_def__unet__down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "network_def__unet__up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "network_def__unet__layers_per_block": 1,
}  # fmt: skip


@pytest.mark.parametrize("amp", PRECISIONS)
def test_diffusion_model_is_trained_and_draws(
    amp: str | None, cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    run = {"dataset_dir": str(cohort), "output_dir": str(tmp_path), "model_dir": str(tmp_path / "models")}
    run_bundle("ddpm_synthesis", "train", **DIFFUSION, **run, amp_dtype=amp)
    assert all(value > 0 for value in numbers(tmp_path / "train_log.csv", "loss", "value"))
    run_bundle(
        "ddpm_synthesis", "inference", **run, workflow_type="inference", amp_dtype=amp, num_images=2, steps=2,
        synthetic_dir=str(tmp_path / "synthetic"),
    )  # fmt: skip
    assert len(list((tmp_path / "synthetic/images").glob("*.png"))) == 2
