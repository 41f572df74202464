"""The options of the teacher's training together: killed, continued, and with the weights of a plain run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bundles.conftest import user_error
from tskd.networks import build_sam
from tskd.state import read_tensors

TOY = {
    "vfm": "mobile_sam", "pretrained": "@network_def", "image_size": 64, "iterations_per_epoch": 4, "batch_size": 2,
    "warmup_steps": 1, "val_interval": 1, "num_labelled": 8, "fine_tuning__blocks": 2,
}  # fmt: skip
OPTIONS = {
    "train__trainer__network": "$torch.compile(@network, backend='eager')",  # the compiler's wrapper without its wait
    "accumulation_steps": 2, "gradient_clip": 1.0, "ema_decay": 0.9, "amp_dtype": "bfloat16",
    "gradient_checkpointing": True, "low_resolution_loss": True, "loss__class_weights": [1, 2, 2, 2, 2],
    "fine_tuning__dropout": 0.1, "lr_scheduler__total_steps": 4,
}  # fmt: skip


def test_all_options_together(cohort: Path, tmp_path: Path, run_bundle: Callable[..., Any]) -> None:
    def train(name: str, epochs: int, **options: Any) -> None:
        places = {"output_dir": str(tmp_path / name), "model_dir": str(tmp_path / name / "models")}
        data = {"dataset_dir": str(cohort), "max_epochs": epochs}
        run_bundle("teacher_segmentation", "train", **{**TOY, **data, **places, **options})

    train("plain", 1)
    train("all", 1, **OPTIONS)
    train("all", 2, **OPTIONS)
    plain, last = (read_tensors(tmp_path / name / "checkpoints/last.pt") for name in ("plain", "all"))
    train("whole", 2, **OPTIONS)  # in one go, the same to the last bit
    whole = read_tensors(tmp_path / "whole/checkpoints/last.pt")
    for name, value in whole["network"].items():
        assert torch.equal(last["network"][name], value), name
    assert all(map(torch.equal, last["ema"]["shadow_params"], whole["ema"]["shadow_params"]))
    assert (tmp_path / "all/train_log.csv").read_text() == (tmp_path / "whole/train_log.csv").read_text()
    assert last["network"].keys() == plain["network"].keys()
    assert last["progress"]["epoch"] == 2
    assert last["ema"]["optimization_step"] == 4  # updates, not iterations
    assert (tmp_path / "all/checkpoints/best.pt").is_file()
    network = build_sam("mobile_sam", num_classes=5, image_size=64)
    network.load_state_dict(read_tensors(tmp_path / "all/models/model.pt"))

    with pytest.raises(RuntimeError) as caught:
        train("all", 3, **{**OPTIONS, "learning_rate": 0.01})
    assert "learning_rate: this run has 0.01, the checkpoint 0.001" in user_error(caught.value)
    other = "$(@network_def, tskd.networks.build_sam(@vfm, @num_classes, @image_size))[1]"  # other random weights
    with pytest.raises(RuntimeError) as caught:
        train("all", 3, **{**OPTIONS, "pretrained": other})
    assert "frozen_weights" in user_error(caught.value)
