"""Students that see more than one slice: neighbours as channels (2.5-D), from training to the scores of volumes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tskd.distillation.conftest import PREPROCESSING
from tskd.data import entries
from tskd.distillation import write_soft_labels
from tskd.evaluation.rows import read_rows
from tskd.networks import build_sam
from tskd.workflow.evaluate_run import evaluate_command

TOY = {"image_size": 64, "max_epochs": 1, "iterations_per_epoch": 2, "batch_size": 2, "warmup_steps": 1}
STUDENT = "student_segmentation"


@pytest.fixture(scope="module")
def soft(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Soft labels of a small SAM that knows nothing."""
    folder = tmp_path_factory.mktemp("several_slices")
    torch.manual_seed(0)
    teacher = build_sam("mobile_sam", 5, 64)
    torch.save(teacher.state_dict(), folder / "model.pt")
    images = entries(cohort / "dataset.json", "transfer")
    write_soft_labels(teacher, images, PREPROCESSING, folder / "soft", folder / "model.pt", {"in_channels": 1})
    return folder / "soft"


def configs_of(command: tuple[str, ...]) -> list[str]:
    """Names of the configs in a command."""
    files = command[command.index("--config_file") + 1]
    return [Path(name.strip(" '\"")).stem for name in files.strip("[]").split(",")]


def test_neighbours_are_trained_distilled_and_evaluated_on_volumes(
    cohort: Path, soft: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    """A student of two neighbours on each side: five channels; on labels, then on labels and pseudo-labels."""
    shared = {**TOY, "dataset_dir": str(cohort), "neighbour_slices": 2, "num_labelled": 5, "batch_norm_batches": 0}
    network = ("segresnet", "averaged", "neighbours")
    first = tmp_path / "first"
    keys = {"output_dir": str(first), "model_dir": str(first / "models")}
    run_bundle(STUDENT, "train", *network, **shared, **keys, network_def__init_filters=8)
    weights = torch.load(first / "models/model.pt", weights_only=True)
    assert weights["convInit.conv.weight"].shape[:2] == (8, 5)
    run = tmp_path / "run"
    keys = {"output_dir": str(run), "init_weights": str(first / "models/model.pt"), "soft_labels": str(soft)}
    files = ("train", "distill", "segresnet", "averaged", "joint", "semi", "neighbours")
    trained = run_bundle(STUDENT, *files, **shared, **keys, network_def__init_filters=8)
    assert trained.parser.get_parsed_content("strong_view").saturation == 0
    versions = (run / "versions.json").read_text()
    assert '"neighbour_slices": 2' in versions
    run_bundle(
        STUDENT, "train", "segresnet", "neighbours", "evaluate", **shared, output_dir=str(run),
        model_dir=str(run / "models"), network_def__init_filters=8, device="cpu",
    )  # fmt: skip
    assert {row.metric for row in read_rows(run / "metrics.csv")} >= {"dice"}


def test_an_evaluation_of_a_run_takes_the_overlay_and_its_neighbours(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").touch()
    made_with = '{"settings": {"image_size": 64, "neighbour_slices": 2}, "config": ["train.json", "neighbours.json"]}'
    (tmp_path / "versions.json").write_text(made_with)
    command = evaluate_command(tmp_path, cohort / "dataset.json")
    assert configs_of(command) == ["train", "neighbours", "evaluate"]
    assert command[command.index("--neighbour_slices") + 1] == "2"
