"""The multi-process overlay, with two gloo processes on the CPU."""

import csv
import math
from pathlib import Path

import pytest
import torch

from tests.bundles.conftest import BUNDLES, SMALL, small_student
from tests.forked import run_module
from tests.tskd.distillation.conftest import PREPROCESSING
from tskd.data import entries
from tskd.distillation import write_soft_labels
from tskd.networks import build_sam
from tskd.state import load_weights, save_weights

SMALLER = {key.replace("__", "#"): value for key, value in SMALL.items()}
PLAIN = (
    "rotate",
    "scale",
    "translate",
    "shear",
    "gamma",
    "brightness",
    "noise",
    "blur",
    "elastic",
    "contrast",
    "low_resolution",
)


def _run(bundle: str, overlay: list[str], processes: int, options: dict[str, object]) -> None:
    configs = [str(BUNDLES / bundle / "configs" / f"{name}.json") for name in ("train", *overlay)]
    command = ["monai.bundle", "run", "--config_file", str(configs), "--bundle_root", str(BUNDLES / bundle)]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    done = run_module(command, processes=processes)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def _losses(log: Path) -> list[tuple[tuple[int, int], float]]:
    with log.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "loss"]
    return [((int(row["epoch"]), int(row["step"])), float(row["value"])) for row in rows]


@pytest.mark.parametrize(
    ("bundle", "extra"),
    [
        ("student_segmentation", {**SMALLER, "deep_supervision": "['decoder4', 'decoder3']"}),
        ("teacher_segmentation", {"vfm": "mobile_sam", "pretrained": "@network_def", "fine_tuning#blocks": 2}),
    ],
)
def test_two_processes_equal_one_with_double_batch(
    bundle: str, extra: dict[str, object], cohort: Path, tmp_path: Path
) -> None:
    # cross-entropy only: a mean over pixels is the mean of the processes' means, batch Dice is not
    options = {
        "dataset_dir": cohort, "image_size": 64, "max_epochs": 2, "iterations_per_epoch": 3, "val_interval": 2,
        "warmup_steps": 1, "learning_rate": 1e-4, "loss#dice_weight": 0.0, "loss#ce_weight": 1.0, **extra,
        **{f"augmentation#{name}": 0.0 for name in PLAIN},
    }  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    _run(bundle, [], 1, {**options, "batch_size": 4, "output_dir": one, "model_dir": one / "models"})
    _run(
        bundle, ["multi_gpu_train"], 2,
        {**options, "batch_size": 2, "output_dir": two, "model_dir": two / "models"},
    )  # fmt: skip
    first, second = (torch.load(folder / "checkpoints/last.pt", weights_only=True)["network"] for folder in (one, two))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-4, msg=name)
    curves = [_losses(folder / "train_log.csv") for folder in (one, two)]
    assert [place for place, _ in curves[0]] == [(1, 3), (2, 6)]
    torch.testing.assert_close(curves[1], curves[0], rtol=0, atol=1e-4)


def test_soft_labels_of_two_processes_are_those_of_one(cohort: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(build_sam("mobile_sam", 5, 64), tmp_path / "model.pt")
    options = {
        "dataset_dir": cohort, "vfm": "mobile_sam", "image_size": 64, "batch_size": 1,
        "model_file": tmp_path / "model.pt", "output_dir": tmp_path,
    }  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    _run("teacher_segmentation", ["soft_labels"], 1, {**options, "soft_labels": one})
    _run("teacher_segmentation", ["soft_labels"], 2, {**options, "soft_labels": two})
    names = sorted(path.name for path in one.glob("[!.]*"))
    assert sorted(path.name for path in two.glob("[!.]*")) == names
    for name in names:  # one image at a time on one thread: the same bytes
        assert (two / name).read_bytes() == (one / name).read_bytes(), name


@pytest.fixture(scope="module")
def soft(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Soft labels of a small SAM that knows nothing."""
    folder = tmp_path_factory.mktemp("soft")
    torch.manual_seed(0)
    save_weights(build_sam("mobile_sam", 5, 64), folder / "model.pt")
    teacher = load_weights(build_sam("mobile_sam", 5, 64), folder / "model.pt")
    images = entries(cohort / "dataset.json", "transfer")
    write_soft_labels(teacher, images, PREPROCESSING, folder, folder / "model.pt", {"in_channels": 1})
    return folder


@pytest.mark.parametrize("method", ["distill", "mae", "mocov3", "pseudo_label", "distill,task_agnostic"])
def test_each_way_of_pretraining_runs_in_two_processes(method: str, soft: Path, cohort: Path, tmp_path: Path) -> None:
    options = {
        "dataset_dir": cohort, "image_size": 64, "batch_size": 2, "max_epochs": 1, "iterations_per_epoch": 2,
        "warmup_steps": 1, "val_interval": 1, "output_dir": tmp_path, "model_dir": tmp_path / "models", **SMALLER,
        **({"soft_labels": soft} if method not in ("mae", "mocov3") else {}),
    }  # fmt: skip
    _run("student_segmentation", [*method.split(","), "multi_gpu_train"], 2, options)
    ((place, loss),) = _losses(tmp_path / "train_log.csv")
    assert place == (1, 2)
    assert math.isfinite(loss)
    load_weights(small_student(), tmp_path / "models/model.pt")  # strictly, as the fine-tuning does with init_weights
