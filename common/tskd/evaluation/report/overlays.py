"""Pictures of cases: truth and prediction on the image, and synthetic images beside real ones."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, withStroke
from monai.transforms import EnsureChannelFirst, LoadImage, Orientation
from numpy.typing import NDArray

from tskd.evaluation.rows import MetricRow, natural, patient_values

TRUTH, PREDICTION = "#56B4E9", "#E69F00"
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)  # of a reader that is not used here
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class Case(NamedTuple):
    """A case chosen for display."""

    rank: str
    case: str
    group: str
    dice: float


def choose_cases(rows: Sequence[MetricRow]) -> list[Case]:
    """Choose best, median and worst case of a run by mean Dice over organs; fewer where there are fewer."""
    by_case: dict[str, list[MetricRow]] = {}
    for row in (row for row in rows if row.metric == "dice"):
        by_case.setdefault(row.case, []).append(row)
    groups = {case: case_rows[0].group for case, case_rows in by_case.items()}
    scores = {case: patient_values(case_rows, "dice")[groups[case]] for case, case_rows in by_case.items()}
    order = sorted(scores, key=lambda case: (scores[case], natural(case)))
    chosen = {"Only": order[0]} if len(order) == 1 else {"Best": order[-1], "Worst": order[0]}
    if len(order) > 2:
        chosen = {"Best": order[-1], "Median": order[(len(order) - 1) // 2], "Worst": order[0]}
    return [Case(rank, case, groups[case], scores[case]) for rank, case in chosen.items()]


def overlay(files: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw contours of truth and prediction on the slice where the truth is largest, upright (patient's right at left).

    Args:
        files: paths under `image`, `label` and `prediction`, as in cases.json.

    Returns:
        The figure, and the words for the slice ("slice 12 of 37", or "" for an image).
    """
    (image, pixel), (truth, _), (pred, _) = (load_upright(files[key]) for key in ("image", "label", "prediction"))
    truth, pred = np.where(truth == 255, 0, truth), np.where(truth == 255, 0, pred)  # not scored, so not shown
    slice_text = ""
    if image.ndim == 4:
        areas = (truth[0] > 0).sum(axis=(0, 1))
        k = int(areas.argmax()) if areas.any() else image.shape[3] // 2
        slice_text = f"slice {k + 1} of {image.shape[3]}"
        image, truth, pred = image[..., k], truth[..., k], pred[..., k]
    height = 4.4 * image.shape[2] / image.shape[1] * pixel
    figure = Figure(figsize=(4.4, float(np.clip(height, 2.0, 7.0)) + 0.35), layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(_to_display_range(image), cmap="gray", aspect=pixel, interpolation="nearest")
    for mask, colour, dashes in ((truth[0], TRUTH, "solid"), (pred[0], PREDICTION, "dashed")):
        for index in np.unique(mask[mask > 0]):
            _contour(ax, mask == index, colour, dashes)
    ax.set_axis_off()
    handles = [
        Line2D([], [], color=TRUTH, linewidth=2, label="truth"),
        Line2D([], [], color=PREDICTION, linewidth=2, linestyle="dashed", label="prediction"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure, slice_text


def image_grid(files: Sequence[str], columns: int = 4) -> Figure:
    """Draw images side by side, upright, each stretched to its own range."""
    rows = -(-len(files) // columns)
    figure = Figure(figsize=(5.2, 5.2 / columns * rows), layout="constrained")
    for index, file in enumerate(files):
        image, _ = load_upright(file)
        ax = figure.add_subplot(rows, columns, index + 1)
        ax.imshow(_to_display_range(image[..., image.shape[3] // 2] if image.ndim == 4 else image), cmap="gray")
        ax.set_axis_off()
    return figure


def load_upright(file: str | Path) -> tuple[NDArray, float]:
    """Load an image file as [C, X, Y] or, turned to LPS, [C, X, Y, Z], with its pixels' height over width."""
    suffixes = "".join(Path(file).suffixes[-2:]).lower()
    reader = "NibabelReader" if ".nii" in suffixes else "PILReader" if suffixes.endswith(_IMAGES) else None
    image = EnsureChannelFirst()(LoadImage(reader=reader)(str(file)))
    if image.ndim < 4:
        return np.asarray(image), 1.0
    upright: Any = Orientation(axcodes="LPS", labels=None)(image)
    return np.asarray(upright), float(upright.pixdim[1] / upright.pixdim[0])


def _to_display_range(image: NDArray) -> NDArray:
    """Return [C, X, Y] as rows x columns (x 3), in [0, 1]."""
    low, high = np.percentile(image, [0.5, 99.5])
    scaled = np.clip((image.astype(float) - low) / max(high - low, 1e-6), 0, 1)
    return scaled[:3].transpose(2, 1, 0) if image.shape[0] >= 3 else scaled[0].T


def _contour(ax: Any, mask: NDArray, colour: str, dashes: str) -> None:
    padded = np.pad(mask, 1).astype(float).T
    x, y = np.arange(padded.shape[1]) - 1, np.arange(padded.shape[0]) - 1
    lines = ax.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=1.5, linestyles=dashes)
    lines.set_path_effects([withStroke(linewidth=2.8, foreground="black", alpha=0.6), Normal()])
