"""How much of the truth a grid of soft labels can say: thin structures are lost on a coarse one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tskd.data import entries
from tskd.data.budget import Budget
from tskd.data.datalist import IGNORE
from tskd.distillation.soft_labels.manifest import MANIFEST, stored
from tskd.files import write_json

logger = logging.getLogger(__name__)

KEPT = 0.99  # of the truth's Dice, which is 1: less is told
GRIDS = (64, 128, 256, 512, 1024)
MOST = 40  # labelled images that are looked at
NAME = "resolution.json"


def truth_dice(label: Tensor, grid: Sequence[int]) -> float:
    """Return mean Dice over the structures of a label with itself, averaged down to a grid and interpolated back.

    This is the best that a student can learn from soft labels of that size: a teacher that is never wrong.

    Args:
        label: class indices H x W; 255 is left out.
        grid: height and width of the soft labels.

    Returns:
        1 where the grid is no coarser than the label, or the label shows nothing.
    """
    classes = [value for value in label.unique().tolist() if value not in (0, IGNORE)]
    size = tuple(label.shape)
    if not classes or (grid[0] >= size[0] and grid[1] >= size[1]):
        return 1.0
    one_hot = torch.stack([(label == value).float() for value in [0, *classes]])[None]
    coarse = functional.adaptive_avg_pool2d(one_hot, (min(grid[0], size[0]), min(grid[1], size[1])))
    predicted = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0].argmax(0)
    counted = label != IGNORE
    scores = []
    for index, value in enumerate(classes, start=1):
        truth, mask = (label == value) & counted, (predicted == index) & counted
        scores.append(2 * (truth & mask).sum().item() / (truth.sum() + mask.sum()).item())
    return float(np.mean(scores))


def grid_for(folder: str | Path, dataset_file: str | Path, num_labelled: Budget = None) -> int | None:
    """Return the smallest grid that keeps 99% of the truth's Dice on the labelled images; finer logits waste disk.

    A folder that is begun keeps the grid that it was begun with.

    Args:
        folder: of soft labels, to be written.
        dataset_file: dataset.json whose labels are the truth.
        num_labelled: labelled budget.

    Returns:
        Side in pixels, of 64 to 1024; None, which is the teacher's own, where that is too coarse, or without labels.
    """
    if (begun := stored(Path(folder))) is not None:
        return begun["grid"]
    labels = [] if num_labelled == 0 else list(_labels(dataset_file, num_labelled))
    return _needed(labels) if labels else None


def _needed(labels: Sequence[Tensor]) -> int | None:
    return next((side for side in GRIDS if np.mean([truth_dice(one, (side, side)) for one in labels]) >= KEPT), None)


def tell_resolution(folder: str | Path, dataset_file: str | Path, num_labelled: Budget = None) -> float | None:
    """Measure what the grid of written soft labels keeps of the labelled images' truth, and warn where it is little.

    Writes `resolution.json` beside the manifest: the grid, what it keeps, and the smallest square grid that keeps 99%.

    Args:
        folder: of soft labels, finished.
        dataset_file: dataset.json whose labels are the truth.
        num_labelled: labelled budget.

    Returns:
        Mean Dice of the truth with itself through the grid; None where the soft labels have no logits, or are not
        finished yet (by another process).
    """
    file = Path(folder) / MANIFEST
    cases = json.loads(file.read_text(encoding="utf-8"))["cases"] if file.is_file() else {}
    shapes = [info["shapes"]["logits"] for info in cases.values() if "logits" in info.get("shapes", {})]
    labels = list(_labels(dataset_file, num_labelled)) if shapes and num_labelled != 0 else []
    if not labels:
        return None
    grid = shapes[0][1:]
    kept = float(np.mean([truth_dice(label, grid) for label in labels]))
    needed = _needed(labels)
    write_json(Path(folder) / NAME, {"grid": grid, "truth_dice": round(kept, 4), "grid_of_99_percent": needed})
    if kept < KEPT:
        logger.warning(
            "%s: soft labels of %d x %d keep %.3f of the truth's Dice on the labelled images; structures are too thin "
            "for them. 0.99 takes a grid of %s: give the teacher a larger image_size, or a MONAI bundle (pooling 1).",
            folder, *grid, kept, needed or f"more than {GRIDS[-1]}",
        )  # fmt: skip
    return kept


def _labels(dataset_file: str | Path, num_labelled: Budget) -> Iterable[Tensor]:
    for entry in entries(dataset_file, "labelled", num_labelled)[:MOST]:
        with Image.open(entry["label"]) as image:
            yield torch.from_numpy(np.array(image))
