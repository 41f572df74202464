"""`tskd distil` at toy length: the real trainings, once more with the labels alone for as long."""

import re
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNet

from tests import forked
from tskd.files import write_json
from tskd.state import read_tensors, save_weights
from tskd.train_log import trained_steps, validation_dice

UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 5, "channels": [4, 8], "strides": [2]}
TOY = ["image_size=64", "iterations_per_epoch=2", "batch_size=2", "warmup_steps=1", "val_interval=1"]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A bundle of somebody else, whose network has learned nothing."""
    torch.manual_seed(0)
    save_weights(UNet(**UNET), tmp_path / "unet/models/model.pt")
    network = {"_target_": "UNet", **UNET}
    write_json(tmp_path / "unet/configs/inference.json", {"image_size": 64, "network_def": network})
    return tmp_path / "unet"


def test_the_labels_alone_are_trained_for_as_long_from_the_same_start(cohort: Path, teacher: Path, tmp_path: Path):
    out = tmp_path / "out"
    places = [
        "--dataset-dir",
        str(cohort.parent),
        "--teacher",
        str(teacher),
        "--output",
        str(out),
        "--num-labelled",
        "4",
    ]
    keys = ["--set", *TOY, "encoder_weights=random", "--fine-tune", "max_epochs=1", "--distil", "max_epochs=2"]
    command = ["tskd.cli", "distil", *places, *keys]
    first = forked.run_module(command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "the labels alone were trained for 2 steps, the other student for 6 steps" in first.stdout
    weights = {name: (out / name / "models/model.pt").read_bytes() for name in ("supervised", "tskd")}

    second = forked.run_module([*command, "--baseline"])
    assert second.returncode == 0, second.stdout + second.stderr
    assert {name: (out / name / "models/model.pt").read_bytes() for name in weights} == weights  # nothing anew
    assert [trained_steps(out / name) for name in ("supervised", "tskd", "supervised_longer")] == [2, 4, 4]
    *_, line, result = second.stdout.splitlines()
    assert re.search(r"by the labels alone, 0\.\d+ in 6 steps, 0\.\d+ with soft labels in 6 steps", line)
    dice = {name: validation_dice(out / name) or 0.0 for name in ("tskd", "supervised_longer", "supervised")}
    best = Path(result).parents[1].name
    assert dice[best] == max(dice.values())
    start, further = (read_tensors(out / name / "models/model.pt") for name in ("supervised", "supervised_longer"))
    assert start.keys() == further.keys()
    assert any(not torch.equal(start[key], further[key]) for key in start)
