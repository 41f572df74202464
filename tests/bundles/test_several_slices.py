"""Students that see more than one slice, as channels (2.5-D) or in patches (3-D): from training to the scores."""

import ast
import csv
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.conftest import BUNDLES
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


def test_a_3d_student_is_trained_distilled_and_evaluated_on_volumes(
    cohort: Path, soft: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    """One labelled patient, two with soft labels; half of each batch is of each kind."""
    shared: dict[str, Any] = {
        **TOY, "image_size": 32, "dataset_dir": str(cohort), "num_labelled": "1 patient", "first_filters": 4,
        "patch_size": [32, 32, 8], "anisotropy": 3.0,
    }  # fmt: skip
    first, run = tmp_path / "first", tmp_path / "run"
    start = first / "models/model.pt"
    trained = run_bundle(
        STUDENT, "train", "averaged", "volume", **shared, output_dir=str(first), model_dir=str(start.parent)
    )
    assert len(trained.parser.get_parsed_content("train#dataset")) == 1
    weights = torch.load(start, weights_only=True)
    assert weights["input_block.conv1.conv.weight"].shape == (4, 1, 3, 3, 1)  # slices are three pixels apart
    keys = {"output_dir": str(run), "init_weights": str(start), "soft_labels": str(soft)}
    files = ("train", "distill", "averaged", "joint", "volume", "volume_distill")
    trained = run_bundle(STUDENT, *files, **shared, **keys)
    sampler = trained.parser.get_parsed_content("train#sampler")
    assert sampler.counts == [1, 2, 0]  # volumes, not slices
    shares = (run / "gradient_shares.csv").read_text().splitlines()
    assert {line.split(",")[1] for line in shares[1:]} >= {"logits_dice", "logits_kl", "labelled"}
    moved = torch.load(run / "models/model.pt", weights_only=True)
    assert any(not torch.equal(value, moved[name]) for name, value in weights.items())
    semi = ("train", "distill", "averaged", "joint", "semi", "volume", "volume_distill", "volume_semi")
    keys = {"output_dir": str(tmp_path / "semi"), "init_weights": str(start), "soft_labels": str(soft)}
    run_bundle(STUDENT, *semi, **shared, **keys, confidence_threshold=0.0)  # nobody is sure of anything here
    taught = torch.load(tmp_path / "semi/models/model.pt", weights_only=True)
    assert any(not torch.equal(value, taught[name]) for name, value in weights.items())
    assert any(not torch.equal(value, taught[name]) for name, value in moved.items())  # by other pseudo-labels
    with (tmp_path / "semi/train_log.csv").open() as file:
        logged = {term["name"]: float(term["value"]) for term in csv.DictReader(file)}
    assert min(logged[name] for name in ("labelled", "logits_dice", "logits_kl")) > 0  # pseudo-labels are the last two
    keys = {"output_dir": str(run), "model_dir": str(run / "models")}
    run_bundle(STUDENT, "train", "volume", "evaluate", **{**shared, **keys}, device="cpu")
    scored = read_rows(run / "metrics.csv")
    assert {row.metric for row in scored} >= {"dice"}
    assert len({row.case for row in scored}) == 2


def test_the_distance_of_slices_is_read_from_the_validation_volumes(cohort: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / f"student_segmentation/configs/{name}.json") for name in ("train", "volume")])
    parser.update({"dataset_dir": str(cohort), "image_size": 64})
    network = parser.get_parsed_content("network_def")
    assert parser.get_parsed_content("anisotropy") > 1
    assert network.strides[1] == [2, 2, 1]
    assert parser.get_parsed_content("patch_size") == [64, 64, 8]


@pytest.mark.parametrize(
    ("overlay", "settings"),
    [
        ("neighbours", {"neighbour_slices": 2}),
        ("volume", {"patch_size": [32, 32, 8], "anisotropy": 3.1, "first_filters": 8}),
    ],
)
def test_an_evaluation_of_a_run_takes_the_overlay_and_its_keys(
    cohort: Path, tmp_path: Path, overlay: str, settings: dict[str, Any]
) -> None:
    """And those of the network that a user's overlay had."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").touch()
    own = {"network_def": {"_target_": "DynUNet", "spatial_dims": 3}, "network_def#in_channels": "@network_channels"}
    made_with = {"settings": {"image_size": 64, **settings}, "config": ["train.json", f"{overlay}.json", "own.json"]}
    (tmp_path / "versions.json").write_text(json.dumps({**made_with, "network_keys": own}))
    command = evaluate_command(tmp_path, cohort / "dataset.json")
    assert configs_of(command) == ["train", overlay, "evaluate"]
    given = dict(pairwise(command))
    assert {key: given[f"--{key}"] for key in settings} == {key: str(value) for key, value in settings.items()}
    assert ast.literal_eval(given["--network_def"]) == own["network_def"]
    assert command.index("--network_def") < command.index("--network_def#in_channels")  # which changes it
