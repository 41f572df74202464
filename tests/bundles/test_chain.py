"""Teacher, soft labels, distillation, fine-tuning and evaluation through the real configs, at toy size."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.bundles.conftest import SMALL, user_error
from tskd.distillation.soft_labels.write import sha256
from tskd.networks import build_sam

TOY = {
    "image_size": 64,
    "max_epochs": 2,
    "iterations_per_epoch": 2,
    "batch_size": 2,
    "warmup_steps": 1,
    "val_interval": 1,
}
TEACHER = {**TOY, "vfm": "mobile_sam", "pretrained": "@network_def"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chain")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_chain(folder: Path, cohort: Path, run_bundle: Callable[..., Any]) -> None:
    data = {"dataset_dir": str(cohort), "num_labelled": 8}
    teacher = {**TEACHER, **data, "model_dir": str(folder / "teacher/models")}
    run_bundle("teacher_segmentation", "train", **teacher, output_dir=str(folder / "teacher"))
    adapter = json.loads((folder / "teacher/models/adapter/adapter_config.json").read_text())
    assert adapter["r"] == 4
    assert {name.rpartition(".")[2] for name in adapter["target_modules"]} == {"q", "v"}
    state = torch.load(folder / "teacher/models/model.pt", weights_only=True)
    fresh = build_sam("mobile_sam", num_classes=5, image_size=64)
    fresh.load_state_dict(state)

    soft = {"soft_labels": str(folder / "soft_labels")}
    run_bundle("teacher_segmentation", "train", "soft_labels", **teacher, **soft, output_dir=str(folder / "soft"))
    manifest = json.loads((folder / "soft_labels/manifest.json").read_text())
    training = json.loads((cohort / "dataset.json").read_text())["training"]
    assert set(manifest["cases"]) == {entry["case"] for entry in training}

    student = {**TOY, **SMALL, **data}
    distil = {**student, **soft, "teacher_model": str(folder / "teacher/models/model.pt")}
    run_bundle("student_segmentation", "train", "distill", **distil, output_dir=str(folder / "distilled"))
    terms = {row["name"] for row in _rows(folder / "distilled/train_log.csv")}
    assert terms == {"loss", "logits_dice", "logits_kl", "embedding", "validation_val_mean_dice"}

    tuned = {**student, "model_dir": str(folder / "tskd/models")}
    run_bundle(
        "student_segmentation", "train", **tuned, output_dir=str(folder / "tskd"),
        init_weights=str(folder / "distilled/models/model.pt"),
    )  # fmt: skip
    before = torch.load(folder / "distilled/models/model.pt", weights_only=True)
    after = torch.load(folder / "tskd/models/model.pt", weights_only=True)
    assert before.keys() == after.keys()
    assert not [name for name in after if name.startswith(("network.", "projection."))]
    for name in ("teacher", "distilled", "tskd"):
        versions = json.loads((folder / name / "versions.json").read_text())
        assert (versions["teacher"], versions["data"]["sha256"]) == ("mobile_sam", sha256(cohort / "dataset.json"))
        assert versions["mirrored"] == []  # the preset of MR

    run_bundle("student_segmentation", "train", "evaluate", **tuned, output_dir=str(folder / "tskd"), method="tskd")
    rows = _rows(folder / "tskd/metrics.csv")
    test = json.loads((cohort / "dataset.json").read_text())["test"]
    assert {row["group"] for row in rows} == {entry["group"] for entry in test}
    assert {(row["method"], row["budget"]) for row in rows} == {("tskd", "8")}
    for case in json.loads((folder / "tskd/cases.json").read_text()).values():
        image, prediction = nib.load(case["image"]), nib.load(case["prediction"])
        assert prediction.shape == image.shape
        np.testing.assert_allclose(prediction.affine, image.affine, atol=1e-4)


def test_soft_labels_of_another_teacher_are_refused_before_training(
    folder: Path, cohort: Path, run_bundle: Callable[..., Any]
) -> None:
    other = folder / "other.pt"
    torch.save({"x": torch.zeros(1)}, other)
    with pytest.raises(Exception, match=r"evaluate|instantiate") as raised:
        run_bundle(
            "student_segmentation", "train", "distill", **TOY, dataset_dir=str(cohort), teacher_model=str(other),
            soft_labels=str(folder / "soft_labels"), output_dir=str(folder / "refused"),
        )  # fmt: skip
    message = user_error(raised.value)
    assert json.loads((folder / "soft_labels/manifest.json").read_text())["teacher"] in message
    assert sha256(other) in message
    assert not (folder / "refused/train_log.csv").exists()


def test_wrong_number_of_classes_names_the_key(folder: Path, cohort: Path, run_bundle: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match=r"evaluate|instantiate") as raised:
        run_bundle(
            "student_segmentation", "train", **TOY, dataset_dir=str(cohort), num_classes=3, output_dir=str(folder)
        )
    assert "Pass --num_classes 5" in user_error(raised.value)


def test_weights_of_other_classes_are_refused(folder: Path, cohort: Path, run_bundle: Callable[..., Any]) -> None:
    other = folder / "other_classes.pt"
    torch.save(build_sam("mobile_sam", num_classes=3, image_size=64).state_dict(), other)
    with pytest.raises(Exception, match=r"evaluate|instantiate") as raised:
        run_bundle(
            "teacher_segmentation", "train", "evaluate", **TEACHER, dataset_dir=str(cohort), model_file=str(other),
            output_dir=str(folder / "refused"),
        )  # fmt: skip
    assert "mask_decoder.mask_tokens.weight: expected shape (5, 256), found (3, 256)" in user_error(raised.value)
