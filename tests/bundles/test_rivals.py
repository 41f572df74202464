"""The student's rivals through the real configs, at toy size: each ends in weights that the fine-tuning takes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from transformers import ViTConfig, ViTModel

from tests.bundles.conftest import BUNDLES, SMALL, small_student, user_error
from tskd.distillation.soft_labels.write import sha256
from tskd.networks import build_sam, load_vit, start_vit
from tskd.state import load_weights

TOY = {"image_size": 64, "max_epochs": 2, "iterations_per_epoch": 4, "batch_size": 4, "warmup_steps": 1}
TINY = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 3}  # the ViT of a `small_student`
VFM = {"vfm": "mobile_sam", "image_size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rivals")


@pytest.fixture(scope="module")
def vfm(folder: Path) -> Path:
    """Weights of a foundation model: random ones, in the network's own names."""
    torch.manual_seed(0)
    torch.save(build_sam("mobile_sam", num_classes=5, image_size=64).state_dict(), folder / "vfm.pt")
    return folder / "vfm.pt"


def _pretrain(run_bundle: Callable[..., Any], folder: Path, cohort: Path, *overlays: str, **keys: Any) -> None:
    keys = {**TOY, **SMALL, **keys, "dataset_dir": str(cohort), "output_dir": str(folder)}
    run_bundle("student_segmentation", "train", *overlays, **keys)
    load_weights(small_student(), folder / "models/model.pt")  # strictly, as the fine-tuning does with init_weights


def _values(folder: Path, name: str) -> list[float]:
    with (folder / "train_log.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]


def _moved(folder: Path) -> set[str]:
    """Parts of the student whose exported weights are not those that the training began with; "vit": all its blocks."""
    torch.manual_seed(0)
    initial = start_vit(small_student(), 0.17, 0.2).state_dict()
    exported = torch.load(folder / "models/model.pt", weights_only=True)
    assert exported.keys() == initial.keys()
    moved = {name for name, value in initial.items() if not torch.equal(value, exported[name])}
    blocks = all(any(name.startswith(f"vit.blocks.{i}.") for name in moved) for i in range(12))
    return {part for part in (name.split(".")[0] for name in moved) if part != "vit" or blocks}


def test_pseudo_label(folder: Path, vfm: Path, cohort: Path, run_bundle: Callable[..., Any]) -> None:
    soft = str(folder / "soft")
    run_bundle(
        "teacher_segmentation", "train", "soft_labels", **VFM, dataset_dir=str(cohort), soft_labels=soft,
        model_file=str(vfm), embedding=False,
    )  # fmt: skip
    run = folder / "pseudo_label"
    _pretrain(run_bundle, run, cohort, "pseudo_label", soft_labels=soft, teacher_model=str(vfm), val_interval=2)
    loss = _values(run, "loss")
    assert loss[-1] < loss[0]
    assert len(_values(run, "validation_val_mean_dice")) == 1


def test_task_agnostic(folder: Path, vfm: Path, cohort: Path, run_bundle: Callable[..., Any]) -> None:
    soft = folder / "untuned"
    run_bundle(
        "teacher_segmentation", "train", "soft_labels", "untuned", **VFM, dataset_dir=str(cohort),
        soft_labels=str(soft), weights=str(vfm), pretrained="@network_def",
    )  # fmt: skip
    manifest = json.loads((soft / "manifest.json").read_text())
    assert manifest["teacher"] == sha256(vfm)
    assert all(list(case["shapes"]) == ["embedding"] for case in manifest["cases"].values())

    run = folder / "task_agnostic"
    keys = {"soft_labels": str(soft), "teacher_model": str(vfm)}
    _pretrain(run_bundle, run, cohort, "distill", "task_agnostic", **keys)
    loss = _values(run, "embedding")
    assert loss[-1] < loss[0]
    assert not _values(run, "validation_val_mean_dice")
    assert _moved(run) == {"vit"}  # the decoder has its initial weights


@pytest.mark.parametrize("rival", ["fixmatch", "mean_teacher"])
def test_its_own_average_is_the_only_teacher(
    rival: str, folder: Path, cohort: Path, run_bundle: Callable[..., Any]
) -> None:
    run = folder / rival
    keys = {"num_labelled": 6, "confidence_threshold": 0.0, "learning_rate": 0.001, "max_epochs": 3, "val_interval": 3}
    recipe = ("distill", "averaged", "joint", "semi", rival)
    _pretrain(run_bundle, run, cohort, *recipe, **keys, soft_labels=str(folder / "nowhere"))
    labelled, pseudo = _values(run, "labelled"), _values(run, "logits_kl")
    assert labelled[-1] < labelled[0]
    assert all(value > 0 for value in pseudo)
    assert len(_values(run, "validation_val_mean_dice")) == 1
    last = torch.load(run / "checkpoints/last.pt", weights_only=True)
    average, exported = last["average"], torch.load(run / "models/model.pt", weights_only=True)
    assert average["n_averaged"] == 12
    assert all(torch.equal(value, average[f"module.{name}"]) for name, value in exported.items())
    assert any(not torch.equal(value, last["network"][f"network.{name}"]) for name, value in exported.items())


@pytest.mark.parametrize("rival", ["mae", "mocov3"])
def test_self_supervised(rival: str, folder: Path, cohort: Path, run_bundle: Callable[..., Any]) -> None:
    run = folder / rival
    _pretrain(run_bundle, run, cohort, rival, batch_size=8, learning_rate=0.001)
    assert len(_values(run, "loss")) == 2
    assert not _values(run, "validation_val_mean_dice")
    assert _moved(run) == {"vit"}
    exported = torch.load(run / "models/model.pt", weights_only=True)
    resumed = torch.load(run / "checkpoints/last.pt", weights_only=True)["network"]
    assert all(torch.equal(value, resumed[name]) for name, value in exported.items() if name.startswith("vit."))
    if rival == "mocov3":
        patches = "vit.patch_embedding.patch_embeddings.weight"
        assert torch.equal(exported[patches], resumed[f"momentum_{patches}"])  # neither has moved
        block = "vit.blocks.0.mlp.linear1.weight"
        assert not torch.equal(exported[block], resumed[f"momentum_{block}"])  # the copy lags behind


@pytest.mark.parametrize("rival", ["mae", "mocov3", "imagenet"])
def test_a_student_without_a_vit(rival: str, folder: Path, cohort: Path, run_bundle: Callable[..., Any]) -> None:
    keys = {"encoder_weights": "vit.safetensors"} if rival == "imagenet" else {}
    with pytest.raises(Exception) as caught:  # noqa: PT011 (MONAI wraps it)
        run_bundle(
            "student_segmentation", "train", "flexible_unet", rival, **TOY, **keys, dataset_dir=str(cohort),
            output_dir=str(folder / "none"),
        )  # fmt: skip
    assert "found FlexibleUNet" in user_error(caught.value)


def test_imagenet(folder: Path, cohort: Path, run_bundle: Callable[..., Any]) -> None:
    """At a learning rate of 0 the student keeps the weights it has been given."""
    ViTModel(ViTConfig(**TINY)).save_pretrained(folder / "vit_tiny")
    run = folder / "imagenet"
    run_bundle(
        "student_segmentation", "train", "imagenet", **{**TOY, **SMALL, "max_epochs": 1}, learning_rate=0.0,
        val_interval=1, dataset_dir=str(cohort), encoder_weights=str(folder / "vit_tiny"), output_dir=str(run),
    )  # fmt: skip
    assert _moved(run) == {"vit"}
    exported = torch.load(run / "models/model.pt", weights_only=True)
    for name, value in load_vit(small_student(), folder / "vit_tiny").vit.state_dict().items():
        torch.testing.assert_close(exported[f"vit.{name}"], value)


def test_imagenet_is_built_on_the_configured_network(folder: Path) -> None:
    """Batch norms have the momentum of the config; a student to begin with is refused."""
    ViTModel(ViTConfig(**TINY)).save_pretrained(folder / "vit_tiny")
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / f"student_segmentation/configs/{name}.json") for name in ("train", "imagenet")])
    parser.update({
        "image_size": 64, **{key.replace("__", "#"): value for key, value in SMALL.items()},
        "network_def#norm_name": "batch", "encoder_weights": str(folder / "vit_tiny"),
        "batch_norm_momentum": 0.3, "pixel_mean": [0.485, 0.456, 0.406], "pixel_std": [0.229, 0.224, 0.225],
    })  # fmt: skip
    network = parser.get_parsed_content("initialised")
    momenta = {module.momentum for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert momenta == {0.3}
    parser.update({"init_weights": "student.pt"})
    parser.parse(True)
    with pytest.raises(RuntimeError, match=r"evaluate|instantiate") as raised:
        parser.get_parsed_content("initialised")
    assert "init_weights: expected None" in user_error(raised.value)
