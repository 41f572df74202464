"""Deep supervision through the student's configs: loss, continuation, and what ships."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from tests.bundles.conftest import BUNDLES
from tests.tskd.distillation.conftest import PREPROCESSING
from tskd.data import entries
from tskd.distillation import write_soft_labels
from tskd.losses import DiceCELoss
from tskd.networks import LiteUNet, build_sam
from tskd.state import load_weights, read_tensors

CONFIGS = BUNDLES / "student_segmentation/configs"
CHANNELS = (16, 12, 8, 6, 4)
SHORT: dict[str, Any] = {
    "image_size": 32, "max_epochs": 1, "iterations_per_epoch": 2, "batch_size": 2, "warmup_steps": 1,
    "encoder_weights": "random", "network_def__decoder_channels": list(CHANNELS),
    "deep_supervision": ["decoder.3", "decoder.2", "decoder.1"],
}  # fmt: skip


def parsed(*configs: str, **more: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in configs])
    parser.update({key.replace("__", "#"): value for key, value in {**SHORT, "device": "cpu", **more}.items()})
    return parser


def plain_loss(logits: list[Tensor], label: Tensor) -> list[Tensor]:
    """The labels' loss at each resolution; the label of a cell is that of a pixel in its middle."""
    loss, values = DiceCELoss(dice_weight=0.8, ce_weight=0.2), []
    for answer in logits:
        step = label.shape[-1] // answer.shape[-1]
        values.append(loss(answer, label[:, :, step // 2 :: step, step // 2 :: step]).double())
    return values


def labels() -> Tensor:
    return torch.randint(0, 5, (2, 1, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_the_loss_of_labels_is_the_weighted_sum_over_the_heads() -> None:
    parser = parsed("train", "lite_unet", "averaged")
    network, loss = (parser.get_parsed_content(key) for key in ("network", "train#trainer#loss_function"))
    logits = network.train()(torch.rand(2, 1, 32, 32))
    values = plain_loss(logits, labels())
    expected = sum(weight * value for weight, value in zip((1, 0.5, 0.25, 0.125), values, strict=True))
    torch.testing.assert_close(loss(logits, labels()).double(), expected, rtol=1e-5, atol=1e-6)
    alone = parsed("train", "lite_unet", "averaged", deep_supervision=[])
    plain = alone.get_parsed_content("train#trainer#loss_function")
    torch.testing.assert_close(plain(logits[0], labels()).double(), values[0], rtol=1e-5, atol=1e-6)


def test_heads_of_a_joint_training_learn_from_labelled_images_alone() -> None:
    """Their gradient does not depend on the images without labels, whose soft labels teach the student itself."""
    semi = ("train", "distill", "lite_unet", "averaged", "joint", "semi")
    parser = parsed(*semi, taught_images="unlabelled", transfer_files=[])
    network, loss = (parser.get_parsed_content(key) for key in ("network", "loss"))
    assert parser.get_parsed_content("train#trainer#loss_function") is loss
    image, label = torch.rand(2, 1, 32, 32), labels()
    label[1] = 255
    target = {"label": label, "logits": torch.randn(2, 5, 32, 32), "weight": torch.ones(2, 1, 32, 32)}
    answers = network.train()(image)
    labelled = plain_loss([answers["logits"], *answers["auxiliary"]], label)
    values = loss.values(answers, target)
    torch.testing.assert_close(values["labelled"].double(), labelled[0], rtol=1e-5, atol=1e-6)
    expected = sum(weight * value for weight, value in zip((0.5, 0.25, 0.125), labelled[1:], strict=True))
    torch.testing.assert_close(values["deep_supervision"].double(), expected, rtol=1e-5, atol=1e-6)
    heads = list(network.network.heads.parameters())
    gradients = torch.autograd.grad(loss(answers, target), heads, retain_graph=True)
    alone = torch.autograd.grad(expected, heads)
    for gradient, one in zip(gradients, alone, strict=True):
        torch.testing.assert_close(gradient, one, rtol=1e-4, atol=1e-6)


def test_without_a_loss_on_labels_there_are_no_heads() -> None:
    parser = parsed("train", "distill", "lite_unet", "averaged")
    assert set(parser.get_parsed_content("loss").terms) == {"logits_dice", "logits_kl", "embedding"}
    assert isinstance(parser.get_parsed_content("network").network, LiteUNet)


@pytest.mark.parametrize("averaged", [[], ["averaged"]])
def test_what_ships_has_no_heads_and_a_stopped_training_goes_on_with_them(
    averaged: list[str], cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    def train(name: str, epochs: int) -> Path:
        keys = {**SHORT, "dataset_dir": str(cohort), "output_dir": str(tmp_path / name), "val_interval": 1}
        keys |= {"model_dir": str(tmp_path / name), "max_epochs": epochs, "lr_scheduler__total_steps": 4}
        run_bundle("student_segmentation", "train", "lite_unet", *averaged, **keys)
        return tmp_path / name

    earlier = read_tensors(train("parts", 1) / "checkpoints/last.pt")["network"]
    parts, whole = train("parts", 2), train("whole", 2)
    assert (parts / "train_log.csv").read_text() == (whole / "train_log.csv").read_text()
    first, second = (read_tensors(run / "checkpoints/last.pt")["network"] for run in (parts, whole))
    assert {name.split(".")[0] for name in first} == {"network", "heads"}
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    heads = [name for name in first if name.startswith("heads")]
    assert not [name for name in heads if torch.equal(first[name], earlier[name])]  # all of them learn
    shipped = load_weights(LiteUNet(1, 5, decoder_channels=CHANNELS), whole / "model.pt").state_dict()
    if not averaged:
        assert all(torch.equal(value, first[f"network.{name}"]) for name, value in shipped.items())


def test_a_joint_training_teaches_the_heads(cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]) -> None:
    """From soft labels and labels together, with pseudo-labels of the average; what ships has no heads."""
    torch.manual_seed(0)
    teacher = build_sam("mobile_sam", 5, 64)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    images = entries(cohort / "dataset.json", "transfer")
    write_soft_labels(teacher, images, PREPROCESSING, tmp_path / "soft", tmp_path / "teacher.pt", {"in_channels": 1})
    keys = {**SHORT, "dataset_dir": str(cohort), "soft_labels": str(tmp_path / "soft"), "num_labelled": 4}
    trained = []
    for epochs in (1, 2):
        run_bundle(
            "student_segmentation", "train", "distill", "lite_unet", "averaged", "joint", "semi",
            **{**keys, "max_epochs": epochs}, output_dir=str(tmp_path), model_dir=str(tmp_path),
            lr_scheduler__total_steps=4,
        )  # fmt: skip
        network = read_tensors(tmp_path / "checkpoints/last.pt")["network"]
        trained.append({name: value for name, value in network.items() if "heads." in name})
    assert len(trained[0]) == 6  # weight and bias of three
    assert not [name for name, value in trained[0].items() if torch.equal(value, trained[1][name])]
    load_weights(LiteUNet(1, 5, decoder_channels=CHANNELS), tmp_path / "model.pt")
