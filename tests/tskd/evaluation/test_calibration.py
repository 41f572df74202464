"""Calibration measures equal plain sums and known values."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tskd.errors import TskdError
from tskd.evaluation import calibration
from tskd.evaluation.calibration import brier_score, calibration_sums, error_detection_auroc, expected_calibration_error
from tskd.evaluation.reliability import COLUMNS, bin_rows, pool, read_bins, reliability_curve, write_bins
from tskd.evaluation.report.runs import Arm, Run


def random_case(seed: int, shape: tuple[int, ...] = (3, 9, 8, 4)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.ones(shape[0]), size=shape[1:])
    return np.moveaxis(prob, -1, 0), rng.integers(0, shape[0], size=shape[1:])


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_plain_loops(seed: int) -> None:
    prob, label = random_case(seed)
    label[0, :3] = 255
    bins: dict[int, list[tuple[float, bool]]] = {}
    squared_error = []
    for point in np.ndindex(label.shape):
        if label[point] == 255:
            continue
        position = (slice(None), *point)
        p = prob[position]
        edge = next(k for k in range(15) if p.max() <= (k + 1) / 15)
        bins.setdefault(edge, []).append((p.max(), int(p.argmax()) == label[point]))
        squared_error.append(sum((p[c] - (label[point] == c)) ** 2 for c in range(3)))
    total = sum(map(len, bins.values()))
    ece = sum(abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b])) * len(b) / total for b in bins.values())
    assert expected_calibration_error(prob, label) == pytest.approx(ece)
    assert brier_score(prob, label) == pytest.approx(np.mean(squared_error))


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


def test_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    prob, label = random_case(2)
    label[0] = 255
    whole = calibration_sums(prob, label)
    monkeypatch.setattr(calibration, "_CHUNK", 7)
    pieces = calibration_sums(prob, label)
    assert pieces.squared_error == pytest.approx(whole.squared_error)
    for key, bins in whole.bins.items():
        assert np.allclose(pieces.bins[key], bins)


def test_pixels_that_the_network_did_not_see_are_left_out() -> None:
    prob, label = random_case(3, (3, 10, 10))
    seen = expected_calibration_error(prob[:, 2:], label[2:])
    prob[:, :2] = 0  # as Invertd of a crop leaves them
    assert expected_calibration_error(prob, label) == pytest.approx(seen)


def test_foreground_leaves_out_only_background_that_both_agree_on() -> None:
    prob, label = random_case(4)
    outside = (prob.argmax(0) == 0) & (label == 0)
    whole, masked = calibration_sums(prob, label), calibration_sums(prob, np.where(outside, 255, label))
    for scale in calibration.SCALES:
        assert np.allclose(whole.bins["foreground", scale], masked.bins["all pixels", scale])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_error_detection_is_the_share_of_pairs_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins = np.stack([rng.integers(0, 4, 6), np.zeros(6), np.zeros(6)], axis=1).astype(float)
    bins[:, 2] = rng.integers(0, bins[:, 0].astype(int) + 1)
    right = np.repeat(np.arange(6), bins[:, 2].astype(int))
    wrong = np.repeat(np.arange(6), (bins[:, 0] - bins[:, 2]).astype(int))
    pairs = np.sign(wrong[:, None] - right[None]).ravel() / 2 + 0.5
    assert error_detection_auroc(bins) == (pytest.approx(pairs.mean()) if pairs.size else None)


def test_bins_of_all_cases_add_up(tmp_path: Path) -> None:
    cases = [calibration_sums(*random_case(seed)) for seed in (5, 6, 7)]
    for name, seed_cases in (("a", cases[:2]), ("b", cases[2:])):
        rows = [r for i, c in enumerate(seed_cases) for r in bin_rows(("d", "8", "m", name, "p", f"{name}{i}"), c)]
        write_bins(tmp_path / name / "calibration.csv", rows)
        assert read_bins(tmp_path / name / "calibration.csv") == rows
    (regions,) = pool([Run(tmp_path / name, rows=[]) for name in ("a", "b", "none")]).values()
    for key, bins in regions.items():
        assert np.allclose(bins, sum(case.bins[key] for case in cases))
        mean, accuracy, share = reliability_curve(bins)
        filled = bins[:, 0] > 0
        assert np.allclose(mean * share, bins[filled, 1] / bins[:, 0].sum())
        assert ((accuracy >= 0) & (accuracy <= 1)).all()
        assert share.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "line", ["", "d,8,m,0,p,c,all pixels,confidence,15,2,1.0,1", "d,8,m,0,p,c,all pixels,confidence,3,2,1.0,3",
             "d,8,m,0,p,c,all pixels,width,3,2,1.0,1", "d,8,m,0,p,c,all pixels,confidence,3,x,1.0,1"]
)  # fmt: skip
def test_unreadable_bins_are_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "calibration.csv").write_text(f"{','.join(COLUMNS if line else COLUMNS[:-1])}\n{line}\n")
    with pytest.raises(TskdError, match=r"calibration\.csv.*expected") as error:
        pool([Run(tmp_path, rows=[])])
    assert "line 2" in str(error.value) or "missing right" in str(error.value)


def test_arms_are_told_apart(tmp_path: Path) -> None:
    case = calibration_sums(*random_case(8))
    rows = [row for method in "mn" for row in bin_rows(("d", "8", method, "0", "p", "c"), case)]
    write_bins(tmp_path / "calibration.csv", rows)
    assert set(pool([Run(tmp_path, rows=[])])) == {Arm("d", "8", "m"), Arm("d", "8", "n")}
