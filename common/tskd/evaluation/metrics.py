"""Segmentation metrics of one case, organ by organ, in physical units.

Definitions follow Metrics Reloaded (arXiv 2206.01653); surfaces and their distances are MONAI's.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance
from numpy.typing import NDArray

from tskd.errors import TskdError

Row = tuple[str, str, float]
Labels = Mapping[str, str] | Mapping[int, str]

# metric -> (title, unit, +1 where more is better, -1 where less is better, 0 where zero is best)
METRICS: dict[str, tuple[str, str, int]] = {
    "dice": ("Dice", "", 1),
    "iou": ("IoU", "", 1),
    "hd95": ("HD95", "mm", -1),
    "assd": ("ASSD", "mm", -1),
    "nsd": ("Surface Dice", "", 1),
    "precision": ("Precision", "", 1),
    "recall": ("Recall", "", 1),
    "volume_difference": ("Volume difference", "ml", 0),
    "area_difference": ("Area difference", "mm²", 0),
    "ece": ("Calibration error", "", -1),
    "ece_foreground": ("Calibration error, foreground", "", -1),
    "brier": ("Brier score", "", -1),
}


def case_metrics(
    pred: NDArray,
    label: NDArray,
    labels: Labels,
    spacing: Sequence[float],
    ignore_index: int = 255,
    tolerance_mm: float = 2.0,
) -> list[Row]:
    """Compare a predicted index mask with the truth, one organ at a time.

    Pixels whose truth is `ignore_index` count as background in both masks. An organ in neither mask gives no row; an
    organ in only one of them gets the worst value of each metric: 0, or the image's diagonal for a distance.

    Args:
        pred: class indices, [X, Y] or [X, Y, Z].
        label: true class indices, the shape of `pred`; `ignore_index` marks pixels without a label.
        labels: class index -> organ name; index 0 is background and is not scored.
        spacing: size of a pixel along each axis, in mm (or 1 where unknown: distances are then in pixels).
        ignore_index: index of pixels without a label.
        tolerance_mm: distance within which a surface counts as right for `nsd`.

    Returns:
        (organ, metric, value) rows, every value finite. `volume_difference` (3-D, in ml) and `area_difference`
        (2-D, in mm²) are prediction minus truth.

    Raises:
        TskdError: shapes, spacing or class indices that do not fit together.
    """
    pred, label = np.asarray(pred), np.asarray(label)
    names = {int(index): name for index, name in labels.items()}
    _check_inputs(pred, label, names, spacing, ignore_index)
    known = label != ignore_index
    size = np.asarray(spacing, dtype=float)
    diagonal = float(np.linalg.norm(np.asarray(pred.shape) * size))

    rows: list[Row] = []
    for index in sorted(set(names) - {0, ignore_index}):
        truth, predicted = label == index, (pred == index) & known
        box = _padded_bounding_box(truth | predicted)
        if box is None:
            continue
        values = _organ_metrics(predicted[box], truth[box], size, tolerance_mm, diagonal)
        rows += [(names[index], metric, value) for metric, value in values.items()]
    return rows


def surface_distances(a: NDArray, b: NDArray, spacing: Sequence[float] | NDArray) -> tuple[NDArray, NDArray]:
    """Return the distances between the surfaces of two non-empty masks: from a to b, and from b to a.

    The surface of a mask is its pixels with a face neighbour outside it; the image's border counts as outside. An axis
    of length 1 has no neighbours, so a volume of one slice is measured as an image.

    Args:
        a: bool mask.
        b: bool mask of the same shape.
        spacing: size of a pixel along each axis, in mm.

    Returns:
        Two float arrays in mm, one value for each surface pixel.
    """
    axes = [axis for axis, length in enumerate(a.shape) if length > 1]
    shape = [a.shape[axis] for axis in axes] or [1]
    size = [float(spacing[axis]) for axis in axes] or [1.0]
    edges = get_mask_edges(a.reshape(shape), b.reshape(shape), crop=False)
    edges_a, edges_b = np.asarray(edges[0], dtype=bool), np.asarray(edges[1], dtype=bool)
    a_to_b = get_surface_distance(edges_a, edges_b, spacing=size)
    b_to_a = get_surface_distance(edges_b, edges_a, spacing=size)
    return np.asarray(a_to_b, dtype=float), np.asarray(b_to_a, dtype=float)


def overlap(n_pred: int, n_truth: int, n_both: int) -> dict[str, float]:
    """Return Dice, IoU, precision and recall from the pixels of two masks, not both empty; 0 where one of them is."""
    return {
        "dice": 2 * n_both / (n_pred + n_truth),
        "iou": n_both / (n_pred + n_truth - n_both),
        "precision": n_both / n_pred if n_pred else 0.0,
        "recall": n_both / n_truth if n_truth else 0.0,
    }


def _organ_metrics(
    pred: NDArray, truth: NDArray, spacing: NDArray, tolerance: float, diagonal: float
) -> dict[str, float]:
    n_pred, n_truth = int(pred.sum()), int(truth.sum())
    values = overlap(n_pred, n_truth, int((pred & truth).sum()))
    if n_pred and n_truth:
        pred_to_truth, truth_to_pred = surface_distances(pred, truth, spacing)
        distances = np.concatenate([pred_to_truth, truth_to_pred])
        values["hd95"] = float(max(np.percentile(pred_to_truth, 95), np.percentile(truth_to_pred, 95)))
        values["assd"] = float(distances.mean())
        # MONAI's distances are float32: without the slack one of exactly the tolerance may fall outside it
        values["nsd"] = float((distances <= tolerance + 1e-5).mean())
    else:
        values |= {"hd95": diagonal, "assd": diagonal, "nsd": 0.0}
    difference = (n_pred - n_truth) * float(np.prod(spacing))
    if pred.ndim == 3:
        values["volume_difference"] = difference / 1000
    else:
        values["area_difference"] = difference
    return values


def _padded_bounding_box(mask: NDArray) -> tuple[slice, ...] | None:
    """Return the bounding box and a pixel around it, so that what is flat in a thicker image keeps its neighbours."""
    box = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not hits.size:
            return None
        box.append(slice(max(int(hits[0]) - 1, 0), int(hits[-1]) + 2))
    return tuple(box)


def _check_inputs(
    pred: NDArray, label: NDArray, names: Mapping[int, str], spacing: Sequence[float], ignore_index: int
) -> None:
    if pred.shape != label.shape or pred.ndim not in (2, 3):
        raise TskdError(
            f"expected prediction and label of one shape, [X, Y] or [X, Y, Z]; found {pred.shape} and {label.shape}. "
            "Invert the preprocessing of the prediction (Invertd) and load the label without resampling."
        )
    if len(spacing) != pred.ndim or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise TskdError(f"expected {pred.ndim} positive spacings in mm, found {tuple(spacing)}.")
    for name, mask, allowed in (("label", label, {*names, ignore_index}), ("prediction", pred, set(names) | {0})):
        unknown = sorted(set(np.unique(mask).tolist()) - allowed - {0})
        if name == "prediction":  # whatever is predicted where the truth is unknown does not count
            unknown = [value for value in unknown if bool(((mask == value) & (label != ignore_index)).any())]
        if unknown:
            raise TskdError(
                f"{name}: expected class indices among {sorted(allowed)} (`labels`), found {unknown[:8]}. "
                "Correct the file, or add the classes to `labels` of dataset.json."
            )
