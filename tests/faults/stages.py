"""Trainings and generators to be disturbed: each a function of a run's folder and of a data folder, at toy size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bundles.conftest import run_configs
from tests.tskd.small_sam import VIT
from tskd.data import prepare_phantom

Stage = Callable[[Path, Path], None]

TOY: dict[str, Any] = {
    "image_size": 32, "max_epochs": 4, "iterations_per_epoch": 2, "batch_size": 2, "warmup_steps": 1, "val_interval": 1,
    "device": "$torch.device('cpu')", "amp_dtype": None,
}  # fmt: skip
STUDENT: dict[str, Any] = {
    **TOY, "network_def__features": [4, 4, 8, 8, 8, 4], "network_def__norm": "batch", "batch_norm_batches": 1,
    "keep": "best",
}  # fmt: skip
JOINT: dict[str, Any] = {**STUDENT, "num_labelled": 4, "keep": "last"}
TEACHER: dict[str, Any] = {
    **TOY, "image_size": 64, "keep": "best", "pretrained": "@network_def", "network_def__config": VIT,
}  # fmt: skip
DIFFUSION: dict[str, Any] = {
    **TOY, "max_epochs": 3, "preview_interval": 2, "steps": 3, "val_images": 6,
    "network_def__unet__layers_per_block": 1,
    "network_def__unet__block_out_channels": [16, 32],
    "network_def__unet__down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "network_def__unet__up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip


def cohort(folder: Path) -> None:
    """Write the data set that all stages read: four virtual patients."""
    prepare_phantom(folder, num_patients=4, seed=1, image_size=32, num_slices=4, num_validation=1, num_test=1)


def _places(folder: Path, data: Path) -> dict[str, str]:
    return {"dataset_dir": str(data), "output_dir": str(folder), "model_dir": str(folder / "models")}


def teacher(folder: Path, data: Path) -> None:
    """Train a small teacher, and ship its best epoch."""
    run_configs("teacher_segmentation", "train", **TEACHER, **_places(folder, data))


def soft_labels(folder: Path, data: Path) -> None:
    """Write the teacher's soft labels."""
    places = {**_places(folder, data), "model_dir": str(data / "teacher/models")}
    run_configs("teacher_segmentation", "train", "soft_labels", **TEACHER, **places,
                soft_labels=str(folder / "soft_labels"))  # fmt: skip


def student(folder: Path, data: Path) -> None:
    """Train a small student, and ship its best epoch."""
    student_training(folder, data, **STUDENT)


def student_training(folder: Path, data: Path, **options: Any) -> None:
    """Train a student with these options."""
    run_configs("student_segmentation", "train", "basic_unet", **options, **_places(folder, data))


def distillation(folder: Path, data: Path) -> None:
    """Distil a small student from soft labels, without features."""
    run_configs("student_segmentation", "train", "distill", "basic_unet", **STUDENT, **_places(folder, data),
                soft_labels=str(data / "soft_labels/soft_labels"))  # fmt: skip


def semi(folder: Path, data: Path) -> None:
    """The default recipe: labels and pseudo-labels of teacher and own average, from a student of the labels."""
    run_configs(
        "student_segmentation", "train", "distill", "basic_unet", "averaged", "joint", "semi", **JOINT,
        **_places(folder, data), soft_labels=str(data / "soft_labels/soft_labels"),
        init_weights=str(data / "student/models/model.pt"),
    )  # fmt: skip


def diffusion(folder: Path, data: Path) -> None:
    """Train a small diffusion model."""
    run_configs("ddpm_synthesis", "train", **DIFFUSION, **_places(folder, data))


def label_diffusion(folder: Path, data: Path) -> None:
    """Train a small diffusion model that draws to label maps."""
    run_configs("ddpm_synthesis", "train", "label_maps", **DIFFUSION, **_places(folder, data))


def images(folder: Path, data: Path) -> None:
    """Draw synthetic images, and gate them."""
    _draw(folder, data, data / "diffusion/models/pipeline")


def labelled_images(folder: Path, data: Path) -> None:
    """Draw synthetic images to label maps, and gate them."""
    _draw(folder, data, data / "label_diffusion/models/pipeline")


def _draw(folder: Path, data: Path, pipeline: Path) -> None:
    run_configs(
        "ddpm_synthesis", "inference", workflow_type="infer", **_places(folder, data), pipeline_dir=str(pipeline),
        num_images=12, batch_size=2, steps=6, device="$torch.device('cpu')", amp_dtype=None,
    )  # fmt: skip


STAGES: dict[str, Stage] = {  # in the order in which they need each other
    "teacher": teacher, "soft_labels": soft_labels, "student": student, "distillation": distillation,
    "semi": semi, "diffusion": diffusion, "label_diffusion": label_diffusion, "images": images,
    "labelled_images": labelled_images,
}  # fmt: skip
NEEDS = {
    "soft_labels": ["teacher"], "distillation": ["teacher", "soft_labels"], "semi": ["soft_labels", "student"],
    "images": ["diffusion"],
    "labelled_images": ["label_diffusion"],
}  # fmt: skip
