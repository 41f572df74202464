"""The search: a real one of two trials, and what it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from tests import forked
from tskd.errors import TskdError
from tskd.workflow import read_yaml
from tskd.workflow.schema import WORKFLOW
from tskd.workflow.search import check_search, read_scores, search, suggest

TOY: dict[str, Any] = {
    "bundle": "student_segmentation",
    "trials": 1,
    "overrides": {
        "image_size": 64, "max_epochs": 1, "iterations_per_epoch": 2, "batch_size": 2, "warmup_steps": 1,
        "val_interval": 1,
        "network_def#hidden_size": 48, "network_def#mlp_dim": 96, "network_def#feature_size": 4,
    },
    "space": {
        "learning_rate": {"type": "float", "low": 0.0001, "high": 0.01, "log": True},
        "augmentation#rotate": {"type": "categorical", "choices": [0, 15]},
    },
}  # fmt: skip


def _write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**TOY, **changes}, sort_keys=False))
    return path


def test_two_trials_without_the_test_images_the_second_after_an_interruption(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in forked.environment().items():
        monkeypatch.setenv(key, value)
    for entry in json.loads(cohort.read_text())["test"]:
        (cohort.parent / entry["image"]).unlink()
        (cohort.parent / entry["label"]).unlink()
    first = search(_write(tmp_path / "one.yaml", dataset=str(cohort)), tmp_path / "out")
    assert len(list(csv.DictReader(first.open()))) == 1
    table = search(_write(tmp_path / "two.yaml", dataset=str(cohort), trials=2), tmp_path / "out")
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0]) == ["trial", "state", "value", "learning_rate", "augmentation#rotate"]
    assert [(row["trial"], row["state"]) for row in rows] == [("0", "complete"), ("1", "complete")]
    for row in rows:
        folder = tmp_path / "out" / f"trial-00{row['trial']}"
        assert float(row["value"]) == max(read_scores(folder / "train_log.csv", "val_mean_dice").values())
        assert 0.0001 <= float(row["learning_rate"]) <= 0.01
        settings = json.loads((folder / "versions.json").read_text())["settings"]
        assert settings["learning_rate"] == pytest.approx(float(row["learning_rate"]), rel=1e-4)
        assert (folder / "models/model.pt").is_file()
    assert rows[0]["learning_rate"] != rows[1]["learning_rate"]
    with pytest.raises(TskdError, match="seed: expected 0, found 1"):
        search(_write(tmp_path / "other.yaml", dataset=str(cohort), seed=1), tmp_path / "out")


def test_proposals_follow_the_seed_and_the_space() -> None:
    space = {**TOY["space"], "batch_size": {"type": "int", "low": 2, "high": 16, "log": True}}

    def proposals(seed: int) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        return [suggest(study.ask(), space) for _ in range(5)]

    assert proposals(0) == proposals(0)
    assert proposals(0) != proposals(1)
    for values in proposals(0):
        assert isinstance(values["batch_size"], int)
        assert values["augmentation#rotate"] in (0, 15)


@pytest.mark.parametrize("rival", [["mae"], ["mocov3"], ["distill", "task_agnostic"]])
def test_a_training_that_never_validates_cannot_be_searched(rival: list[str]) -> None:
    with pytest.raises(TskdError, match=f"expected a training that validates, found train, {', '.join(rival)}"):
        check_search({**TOY, "dataset": "dataset.json", "configs": ["train", *rival]}, "search.yaml")


def test_all_problems_are_named_at_once() -> None:
    settings = {
        **TOY, "dataset": "dataset.json",
        "configs": ["train", "evaluate"],
        "overrides": {"section": "test", "validate#dataset#data": "x", "learning_rat": 1},
        "space": {"learning_rate": {"type": "float", "low": 1, "high": 0}},
    }  # fmt: skip
    with pytest.raises(TskdError) as raised:
        check_search(settings, "search.yaml")
    for part in (
        "5 problems",
        "found evaluate",
        "section is set",
        "validate#dataset#data is set",
        "learning_rate",
        "low <= high",
    ):
        assert part in str(raised.value)


def test_the_schema_says_where() -> None:
    with pytest.raises(TskdError, match=r"space/lr: expected the key high") as raised:
        check_search({**TOY, "dataset": "d", "trials": 0, "space": {"lr": {"type": "float", "low": 1}}}, "search.yaml")
    assert "trials: expected at least 1, found 0" in str(raised.value)


def test_the_example_is_accepted() -> None:
    check_search(read_yaml(WORKFLOW / "search.yaml"), "search.yaml")
