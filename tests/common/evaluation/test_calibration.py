"""Calibration measures equal plain sums and known values."""

import numpy as np
import pytest

from common.errors import TskdError
from common.evaluation.calibration import brier_score, expected_calibration_error


def random_case(seed: int, shape: tuple[int, ...] = (3, 9, 8, 4)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.ones(shape[0]), size=shape[1:])
    return np.moveaxis(prob, -1, 0), rng.integers(0, shape[0], size=shape[1:])


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_plain_loops(seed: int) -> None:
    prob, label = random_case(seed)
    label[0, :3] = 255
    bins: dict[int, list[tuple[float, bool]]] = {}
    squares = []
    for point in np.ndindex(label.shape):
        if label[point] == 255:
            continue
        p = prob[(slice(None), *point)]
        edge = next(k for k in range(15) if p.max() <= (k + 1) / 15)
        bins.setdefault(edge, []).append((p.max(), int(p.argmax()) == label[point]))
        squares.append(sum((p[c] - (label[point] == c)) ** 2 for c in range(3)))
    total = sum(map(len, bins.values()))
    ece = sum(abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b])) * len(b) / total for b in bins.values())
    assert expected_calibration_error(prob, label) == pytest.approx(ece)
    assert brier_score(prob, label) == pytest.approx(np.mean(squares))


def test_extremes() -> None:
    label = np.array([[0, 1], [1, 0]])
    right = np.stack([label == 0, label == 1]).astype(float)
    assert (expected_calibration_error(right, label), brier_score(right, label)) == (0, 0)
    assert (expected_calibration_error(1 - right, label), brier_score(1 - right, label)) == (1, 2)
    half = np.full((2, 2, 2), 0.5)
    assert brier_score(half, label) == 0.5
    assert expected_calibration_error(half, label) == 0  # half of the pixels are right
    assert expected_calibration_error(right, np.full((2, 2), 255)) is None
    assert brier_score(right, np.full((2, 2), 255)) is None


def test_errors_name_the_fault() -> None:
    prob, label = random_case(0)
    with pytest.raises(TskdError, match=r"over a label \(9, 8\)"):
        brier_score(prob, label[..., 0])
    with pytest.raises(TskdError, match="apply softmax"):
        brier_score(prob * 3, label)
    with pytest.raises(TskdError, match="class indices below 3"):
        expected_calibration_error(prob, label + 1)
