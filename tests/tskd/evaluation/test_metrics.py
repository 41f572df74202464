"""Metrics agree with a plain brute-force implementation and follow the stated rules for empty masks."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from scipy.spatial.distance import cdist

from tskd.errors import TskdError
from tskd.evaluation.metrics import METRICS, case_metrics

LABELS = {"0": "background", "1": "liver", "2": "spleen"}


def surface(mask: np.ndarray) -> np.ndarray:
    """Coordinates of the pixels of a mask that have a face neighbour outside it, by plain loops."""
    points = []
    for point in np.argwhere(mask):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbour = point.copy()
            neighbour[axis] += step
            inside = 0 <= neighbour[axis] < mask.shape[axis]
            if not inside or not mask[tuple(neighbour)]:
                points.append(point)
                break
    return np.array(points)


def brute_force(pred: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> dict[str, float]:
    """The metrics of two non-empty masks straight from their definitions."""
    a, b = surface(pred) * np.array(spacing), surface(truth) * np.array(spacing)
    distances = cdist(a, b)
    a_to_b, b_to_a = distances.min(axis=1), distances.min(axis=0)
    true_positive = float(np.sum(pred * truth))
    voxel = float(np.prod(spacing))
    result = {
        "dice": true_positive / ((pred.sum() + truth.sum()) / 2),
        "iou": true_positive / np.sum(np.maximum(pred, truth)),
        "hd95": max(np.quantile(a_to_b, 0.95), np.quantile(b_to_a, 0.95)),
        "assd": (a_to_b.sum() + b_to_a.sum()) / (len(a_to_b) + len(b_to_a)),
        "nsd": (np.sum(a_to_b <= tolerance + 1e-5) + np.sum(b_to_a <= tolerance + 1e-5)) / (len(a_to_b) + len(b_to_a)),
        "precision": true_positive / pred.sum(),
        "recall": true_positive / truth.sum(),
    }
    volume = (float(pred.sum()) - float(truth.sum())) * voxel
    return result | ({"volume_difference": volume / 1000} if pred.ndim == 3 else {"area_difference": volume})


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random index mask with smooth regions of three classes."""
    rng = np.random.default_rng(seed)
    field = rng.normal(size=shape)
    for axis in range(len(shape)):
        field = field + np.roll(field, 1, axis) + np.roll(field, 2, axis)
    low, high = np.quantile(field, rng.uniform(0.2, 0.5)), np.quantile(field, rng.uniform(0.6, 0.9))
    return np.where(field > high, 2, np.where(field < low, 1, 0)).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((23, 17), (1.0, 1.0)),
        ((16, 25), (0.6, 2.3)),
        ((11, 9, 7), (1.25, 1.25, 7.7)),
        ((8, 12, 5), (3.0, 0.7, 1.1)),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_brute_force(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int) -> None:
    pred, label = blobs(shape, seed), blobs(shape, seed + 100)
    scores = {(name, metric): value for name, metric, value in case_metrics(pred, label, LABELS, spacing)}
    for index, name in ((1, "liver"), (2, "spleen")):
        expected = brute_force(pred == index, label == index, spacing, 2.0)
        assert {metric for organ, metric in scores if organ == name} == set(expected) <= set(METRICS)
        for metric, value in expected.items():
            assert scores[name, metric] == pytest.approx(value, rel=1e-5, abs=1e-9), (name, metric)


def test_equals_monai_on_whole_volume() -> None:
    spacing = (1.25, 1.25, 7.7)
    pred, label = blobs((20, 18, 9), 5), blobs((20, 18, 9), 6)
    scores = {(name, metric): value for name, metric, value in case_metrics(pred, label, LABELS, spacing)}
    one, two = (torch.stack([torch.as_tensor(mask == k) for k in range(3)])[None].float() for mask in (pred, label))
    reference = {
        "dice": compute_dice(one, two, include_background=False),
        "hd95": compute_hausdorff_distance(one, two, percentile=95, spacing=spacing),
        "assd": compute_average_surface_distance(one, two, symmetric=True, spacing=spacing),
    }
    for metric, values in reference.items():
        for name, value in zip(("liver", "spleen"), values[0], strict=True):
            assert scores[name, metric] == pytest.approx(value.item(), rel=1e-5), (name, metric)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), dims=st.sampled_from([(9, 12), (6, 7, 5)]))
def test_properties(seed: int, dims: tuple[int, ...]) -> None:
    spacing = (0.8, 1.7, 3.1)[: len(dims)]
    pred, label = blobs(dims, seed), blobs(dims, seed + 1)
    rows = {(n, m): v for n, m, v in case_metrics(pred, label, LABELS, spacing)}
    swapped = {(n, m): v for n, m, v in case_metrics(label, pred, LABELS, spacing)}
    same = {(n, m): v for n, m, v in case_metrics(label, label, LABELS, spacing)}
    diagonal = float(np.linalg.norm(np.array(dims) * spacing))
    for (name, metric), value in rows.items():
        assert np.isfinite(value)
        if metric in ("dice", "iou", "hd95", "assd", "nsd"):
            assert swapped[name, metric] == pytest.approx(value)
        if metric in ("dice", "iou", "nsd", "precision", "recall"):
            assert 0 <= value <= 1
            assert same[name, metric] == 1
        else:
            assert abs(same[name, metric]) == 0
        if metric in ("hd95", "assd"):
            assert 0 <= value <= diagonal
        if metric.endswith("_difference"):
            assert swapped[name, metric] == pytest.approx(-value)
    assert rows["liver", "dice"] == pytest.approx(2 * rows["liver", "iou"] / (1 + rows["liver", "iou"]))


def test_known_distance() -> None:
    label = np.zeros((30, 30), np.uint8)
    pred = label.copy()
    label[5, 5:20] = 1
    pred[9, 5:20] = 1
    rows = {m: v for _, m, v in case_metrics(pred, label, LABELS, (0.5, 3.0))}
    assert rows["hd95"] == rows["assd"] == pytest.approx(2.0)
    assert rows["nsd"] == 1  # exactly the tolerance counts as within it
    assert {m: v for _, m, v in case_metrics(pred, label, LABELS, (0.5, 3.0), tolerance_mm=1.9)}["nsd"] == 0


@pytest.mark.parametrize("spacing", [(2.0, 1.0), (1.25, 1.25, 7.7)])
def test_empty_masks(spacing: tuple[float, ...]) -> None:
    shape = (10, 12, 4)[: len(spacing)]
    empty, organ = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    organ[2:5, 3:6] = 1
    diagonal = float(np.linalg.norm(np.array(shape) * spacing))
    size = organ.sum() * np.prod(spacing)
    assert case_metrics(empty, empty, LABELS, spacing) == []
    for pred, label, sign in ((empty, organ, -1), (organ, empty, 1)):
        rows = case_metrics(pred, label, LABELS, spacing)
        assert {name for name, _, _ in rows} == {"liver"}
        values = {metric: value for _, metric, value in rows}
        difference = values.pop("volume_difference", None)
        difference = values.pop("area_difference") if difference is None else difference * 1000
        assert difference == pytest.approx(sign * size)
        assert values.pop("hd95") == values.pop("assd") == pytest.approx(diagonal)
        assert values == {"dice": 0, "iou": 0, "nsd": 0, "precision": 0, "recall": 0}


def test_ignored_pixels_do_not_count() -> None:
    label = blobs((20, 20), 3)
    pred = label.copy()
    label[:, 10:] = 255
    pred[:, 10:] = blobs((20, 10), 8)
    assert all(v == 1 for _, m, v in case_metrics(pred, label, LABELS, (1, 1)) if m in ("dice", "nsd", "precision"))
    assert case_metrics(pred, np.full_like(label, 255), LABELS, (1, 1)) == []
    pred[:, 10:] = 7  # no class of ours, but not asked for either
    assert case_metrics(pred, label, LABELS, (1, 1))


def test_one_slice_volume_is_measured_as_an_image() -> None:
    pred, label = blobs((15, 14), 1), blobs((15, 14), 2)
    flat = {(n, m): v for n, m, v in case_metrics(pred, label, LABELS, (1.0, 2.0))}
    volume = {(n, m): v for n, m, v in case_metrics(pred[..., None], label[..., None], LABELS, (1.0, 2.0, 5.0))}
    for name, metric in itertools.product(("liver", "spleen"), ("dice", "hd95", "assd", "nsd")):
        assert volume[name, metric] == pytest.approx(flat[name, metric])


@pytest.mark.parametrize("shape", [(12, 11, 6), (40, 60)], ids=["one slice of six", "a line of one pixel's width"])
def test_what_is_flat_in_a_thicker_image_keeps_its_neighbours(shape: tuple[int, ...]) -> None:
    pred, label = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    if len(shape) == 3:
        label[2:9, 2:8, 3], pred[3:10, 3:8, 3] = 1, 1
    else:
        label[20, 5:55], pred[20, 15:45] = 1, 1
    spacing = (1.0, 1.0, 5.0)[: len(shape)]
    scores = {metric: value for _, metric, value in case_metrics(pred, label, LABELS, spacing)}
    one, two = (torch.stack([torch.as_tensor(mask == k) for k in range(2)])[None].float() for mask in (pred, label))
    hd95 = compute_hausdorff_distance(one, two, percentile=95, spacing=spacing)
    assert scores["hd95"] == pytest.approx(hd95.item(), rel=1e-5)
    assd = compute_average_surface_distance(one, two, symmetric=True, spacing=spacing)
    assert scores["assd"] == pytest.approx(assd.item(), rel=1e-5)


def test_single_pixels() -> None:
    label, pred = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    label[1, 1] = pred[1, 1] = 1
    assert {m: v for _, m, v in case_metrics(pred, label, LABELS, (1, 1))}["hd95"] == 0
    pred[1, 1], pred[3, 1] = 0, 1
    assert {m: v for _, m, v in case_metrics(pred, label, LABELS, (1.5, 1))}["hd95"] == 3


@pytest.mark.parametrize(
    ("pred", "label", "spacing", "words"),
    [
        (np.zeros((3, 4)), np.zeros((4, 3)), (1, 1), "(3, 4) and (4, 3)"),
        (np.zeros((3, 4)), np.zeros((3, 4)), (1, 1, 1), "2 positive spacings"),
        (np.zeros((3, 4)), np.zeros((3, 4)), (1, 0), "positive"),
        (np.zeros((3, 4)), np.full((3, 4), 9), (1, 1), "label: expected class indices among [0, 1, 2, 255]"),
        (np.full((3, 4), 9), np.zeros((3, 4)), (1, 1), "prediction: expected class indices among [0, 1, 2]"),
    ],
)
def test_errors_name_the_fault(pred: np.ndarray, label: np.ndarray, spacing: tuple[float, ...], words: str) -> None:
    with pytest.raises(TskdError) as error:
        case_metrics(pred, label, LABELS, spacing)
    assert words in str(error.value)
