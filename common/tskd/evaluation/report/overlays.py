"""Pictures of cases: truth and prediction on the image, and synthetic images beside real ones."""

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
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class Case(NamedTuple):
    """A case chosen for display."""

    rank: str
    case: str
    group: str
    dice: float


def choose_cases(rows: Sequence[MetricRow]) -> list[Case]:
    """Best, median and worst case by mean Dice over organs, among the rows of one run; fewer if there are fewer."""
    by_case: dict[str, list[MetricRow]] = {}
    for row in (row for row in rows if row.metric == "dice"):
        by_case.setdefault(row.case, []).append(row)
    groups = {case: own[0].group for case, own in by_case.items()}
    scores = {case: patient_values(own, "dice")[groups[case]] for case, own in by_case.items()}
    order = sorted(scores, key=lambda case: (scores[case], natural(case)))
    picked = {"Only": order[0]} if len(order) == 1 else {"Best": order[-1], "Worst": order[0]}
    if len(order) > 2:
        picked = {"Best": order[-1], "Median": order[(len(order) - 1) // 2], "Worst": order[0]}
    return [Case(rank, case, groups[case], scores[case]) for rank, case in picked.items()]


def overlay(files: Mapping[str, Any]) -> tuple[Figure, str]:
    """Contours of truth and prediction on the slice where the truth is largest, upright (patient's right at left).

    Args:
        files: paths under `image`, `label` and `prediction`, as in cases.json.

    Returns:
        The figure, and the words for the slice ("slice 12 of 37", or "" for an image).
    """
    (image, pixel), (truth, _), (guess, _) = (load_upright(files[key]) for key in ("image", "label", "prediction"))
    truth, guess = np.where(truth == 255, 0, truth), np.where(truth == 255, 0, guess)  # not scored, so not shown
    where = ""
    if image.ndim == 4:
        areas = (truth[0] > 0).sum(axis=(0, 1))
        k = int(areas.argmax()) if areas.any() else image.shape[3] // 2
        where = f"slice {k + 1} of {image.shape[3]}"
        image, truth, guess = image[..., k], truth[..., k], guess[..., k]
    height = 4.4 * image.shape[2] / image.shape[1] * pixel
    figure = Figure(figsize=(4.4, float(np.clip(height, 2.0, 7.0)) + 0.35), layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(_shown(image), cmap="gray", aspect=pixel, interpolation="nearest")
    for mask, colour, dashes in ((truth[0], TRUTH, "solid"), (guess[0], PREDICTION, "dashed")):
        for index in np.unique(mask[mask > 0]):
            _contour(ax, mask == index, colour, dashes)
    ax.set_axis_off()
    handles = [
        Line2D([], [], color=TRUTH, linewidth=2, label="truth"),
        Line2D([], [], color=PREDICTION, linewidth=2, linestyle="dashed", label="prediction"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure, where


def image_grid(files: Sequence[str], columns: int = 4) -> Figure:
    """Images side by side, upright, each stretched to its own range."""
    rows = -(-len(files) // columns)
    figure = Figure(figsize=(5.2, 5.2 / columns * rows), layout="constrained")
    for place, file in enumerate(files):
        image, _ = load_upright(file)
        ax = figure.add_subplot(rows, columns, place + 1)
        ax.imshow(_shown(image[..., image.shape[3] // 2] if image.ndim == 4 else image), cmap="gray")
        ax.set_axis_off()
    return figure


def load_upright(file: str | Path) -> tuple[NDArray, float]:
    """An image file as [C, X, Y] or, turned to LPS, [C, X, Y, Z], and the height of its pixels over their width."""
    suffixes = "".join(Path(file).suffixes[-2:]).lower()
    reader = "NibabelReader" if ".nii" in suffixes else "PILReader" if suffixes.endswith(_IMAGES) else None
    image = EnsureChannelFirst()(LoadImage(reader=reader)(str(file)))
    if image.ndim < 4:
        return np.asarray(image), 1.0
    upright: Any = Orientation(axcodes="LPS", labels=None)(image)
    return np.asarray(upright), float(upright.pixdim[1] / upright.pixdim[0])


def _shown(image: NDArray) -> NDArray:
    """[C, X, Y] -> rows x columns (x 3), in [0, 1]."""
    low, high = np.percentile(image, [0.5, 99.5])
    scaled = np.clip((image.astype(float) - low) / max(high - low, 1e-6), 0, 1)
    return scaled[:3].transpose(2, 1, 0) if image.shape[0] >= 3 else scaled[0].T


def _contour(ax: Any, mask: NDArray, colour: str, dashes: str) -> None:
    padded = np.pad(mask, 1).astype(float).T
    x, y = np.arange(padded.shape[1]) - 1, np.arange(padded.shape[0]) - 1
    lines = ax.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=1.5, linestyles=dashes)
    lines.set_path_effects([withStroke(linewidth=2.8, foreground="black", alpha=0.6), Normal()])
