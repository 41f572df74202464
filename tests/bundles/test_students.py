"""Other students, several teachers, every term of the loss and the labels mixed in, through the real configs."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet
from safetensors.torch import load_file

from common.data import entries
from common.distillation import write_soft_labels
from common.networks import build_sam
from common.networks.weight_store import sha256
from tests.bundles.conftest import BUNDLES
from tests.common.distillation.conftest import PREPROCESSING

TOY = {"image_size": 64, "max_epochs": 1, "iterations_per_epoch": 2, "batch_size": 2, "warmup_steps": 1}
STUDENTS = ("segresnet", "basic_unet", "flexible_unet", "swin_unetr")
TERMS = {
    "logits_dice", "logits_kl", "embedding", "logits_bce", "confidence_kl", "boundary_kl", "channel_wise", "attention",
    "region_affinity", "labelled",
}  # fmt: skip
UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 5, "channels": [4, 8], "strides": [2]}


@pytest.fixture(scope="module")
def soft(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Soft labels of a small SAM that knows nothing."""
    folder = tmp_path_factory.mktemp("students")
    torch.manual_seed(0)
    teacher = build_sam("mobile_sam", 5, 64)
    torch.save(teacher.state_dict(), folder / "model.pt")
    images = entries(cohort / "dataset.json", "transfer")
    write_soft_labels(teacher, images, PREPROCESSING, folder / "soft", folder / "model.pt", {"in_channels": 1})
    return folder / "soft"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", STUDENTS)
def test_each_student_is_distilled_and_stays_stock(
    name: str, soft: Path, cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    run_bundle(
        "student_segmentation", "train", "distill", name, **TOY, dataset_dir=str(cohort), soft_labels=str(soft),
        output_dir=str(tmp_path),
    )  # fmt: skip
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / "student_segmentation/configs" / f"{file}.json") for file in ("train", name)])
    parser["image_size"] = 64
    stock = parser.get_parsed_content("network_def")
    stock.load_state_dict(torch.load(tmp_path / "models/model.pt", weights_only=True))
    assert type(stock).__module__.startswith("monai.networks.nets")
    shares = rows(tmp_path / "gradient_shares.csv")
    assert [row["term"] for row in shares] == ["logits_dice", "logits_kl", "embedding"]
    assert all(float(row["norm"]) > 0 for row in shares)  # also the embedding reaches the student, through the tap


@pytest.fixture
def other_bundle(tmp_path: Path) -> Path:
    """A bundle of somebody else, with a network of MONAI."""
    for folder in ("configs", "models"):
        (tmp_path / "bundle" / folder).mkdir(parents=True)
    config = {"network_def": {"_target_": "UNet", **UNET}}
    (tmp_path / "bundle/configs/inference.json").write_text(json.dumps(config))
    torch.save(UNet(**UNET).state_dict(), tmp_path / "bundle/models/model.pt")
    return tmp_path / "bundle"


def test_all_terms_two_teachers_and_labels_then_fine_tuning(
    soft: Path, cohort: Path, other_bundle: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    data = {"dataset_dir": str(cohort), "num_labelled": 5}
    run_bundle(
        "teacher_segmentation", "train", "soft_labels", "teacher_bundle", **TOY, **data,
        teacher_bundle=str(other_bundle), soft_labels=str(tmp_path / "soft"), output_dir=str(tmp_path),
    )  # fmt: skip
    manifest = json.loads((tmp_path / "soft/manifest.json").read_text())
    assert manifest["teacher"] == sha256(other_bundle / "models/model.pt")
    assert manifest["preprocessing"]["vfm"] == "UNet"
    logits = load_file(next((tmp_path / "soft").glob("*.safetensors")))
    assert {key: value.shape for key, value in logits.items()} == {"logits": (5, 16, 16)}

    weights = {f"loss__terms__{name}__weight": 0.5 for name in TERMS - {"labelled", "logits_kl"}}
    weights["loss__terms__logits_kl__weight"] = {
        "_target_": "common.distillation.Linear", "start": 0.2, "end": 0.1, "epochs": 4
    }  # fmt: skip
    run_bundle(
        "student_segmentation", "train", "distill", **TOY, **data, **weights, labelled_weight=0.5,
        soft_labels=[str(soft), str(tmp_path / "soft")], teacher_weights=[0.7, 0.3],
        batch_ratio={"labelled": 1, "unlabelled": 1}, output_dir=str(tmp_path / "distilled"),
    )  # fmt: skip
    shares = {row["term"]: row for row in rows(tmp_path / "distilled/gradient_shares.csv")}
    assert shares.keys() == TERMS
    assert float(shares["logits_kl"]["weight"]) == 0.2
    assert float(shares["labelled"]["value"]) > 0.1  # there is a labelled image in every batch
    assert {row["name"] for row in rows(tmp_path / "distilled/train_log.csv")} == TERMS | {"loss"}

    first = torch.load(tmp_path / "distilled/models/model.pt", weights_only=True)
    run_bundle(
        "student_segmentation", "train", **TOY, **data, init_weights=str(tmp_path / "distilled/models/model.pt"),
        layer_decay=0.5, freeze=["vit.patch_embedding", "vit.blocks.0"], output_dir=str(tmp_path / "tuned"),
        model_dir=str(tmp_path / "tuned/models"),
    )  # fmt: skip
    tuned = torch.load(tmp_path / "tuned/models/model.pt", weights_only=True)
    moved = {name for name, value in first.items() if not torch.equal(value, tuned[name])}
    assert not [name for name in moved if name.startswith(("vit.patch_embedding.", "vit.blocks.0."))]
    assert "vit.blocks.11.norm1.weight" in moved
