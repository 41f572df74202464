"""The number that chooses a model is the one that the evaluation reports."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.metrics import DiceMetric

from tskd.evaluation import MeanDice, MetricsWriter

LABELS = {"0": "background", "1": "liver", "2": "spleen"}


class _AsItIs(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _evaluate(folder: Path, cases: list[dict[str, Any]]) -> dict[str, float]:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases), batch_size=1),
        network=_AsItIs(),
        key_val_metric={"val_mean_dice": MeanDice(len(LABELS))},
        val_handlers=[MetricsWriter(folder, LABELS, "toy", 1, "student", 0)],
    )
    evaluator.run()
    return evaluator.state.metrics


def _case(number: int, group: str, truth: np.ndarray, guess: np.ndarray) -> dict[str, Any]:
    return {"image": torch.from_numpy(guess)[None].float(), "label": torch.from_numpy(truth)[None],
            "group": group, "case": f"case{number}"}  # fmt: skip


def test_a_false_positive_where_the_truth_lacks_a_structure_is_0(tmp_path: Path) -> None:
    truth = np.zeros((6, 6), np.uint8)
    truth[:2] = 1
    guess = truth.copy()
    guess[4:] = 2  # no such structure
    metrics = _evaluate(tmp_path, [_case(0, "a", truth, guess)])
    assert metrics["val_mean_dice"] == metrics["mean_dice"] == 0.5
    stock = DiceMetric(include_background=False, num_classes=3, ignore_index=255)
    stock(torch.from_numpy(guess)[None, None], torch.from_numpy(truth)[None, None])
    assert float(stock.aggregate()) == 1  # what chose the model before


def test_neither_shown_is_left_out_and_patients_weigh_alike(tmp_path: Path) -> None:
    full, none = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    cases = [_case(k, "a", full, full) for k in range(3)] + [_case(3, "b", full, none), _case(4, "c", none, none)]
    metrics = _evaluate(tmp_path, cases)
    assert metrics["val_mean_dice"] == metrics["mean_dice"] == 0.5  # a: 1, b: 0, c shows nothing


@pytest.mark.parametrize("value", [0, 255])
def test_nothing_to_score_is_0(tmp_path: Path, value: int) -> None:
    truth, guess = np.full((4, 4), value, np.uint8), np.full((4, 4), value // 255, np.uint8)
    assert _evaluate(tmp_path, [_case(0, "a", truth, guess)])["val_mean_dice"] == 0


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_validation_says_what_the_evaluation_says(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(5):
        truth = rng.choice([0, 0, 0, *rng.choice([0, 1, 2, 255], 2)], (5, 4, 3)).astype(np.uint8)
        guess = rng.choice([0, 0, *rng.choice([0, 1, 2], 2)], (5, 4, 3)).astype(np.uint8)
        cases.append(_case(number, f"p{rng.integers(3)}", truth, guess))
    metrics = _evaluate(tmp_path_factory.mktemp("evaluation"), cases)
    assert metrics["val_mean_dice"] == pytest.approx(metrics.get("mean_dice", 0.0), abs=1e-12)


def test_items_without_a_patient_are_patients_of_their_own() -> None:
    """As in a list of MONAI Label's."""
    metric = MeanDice(2)
    engine = Engine(lambda engine, batch: batch)
    metric.attach(engine, "dice")
    full, none = np.ones((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8)
    engine.run([[{"pred": full, "label": full}], [{"pred": none, "label": full}], [{"pred": full, "label": none}]])
    assert engine.state.metrics["dice"] == pytest.approx(1 / 3)
