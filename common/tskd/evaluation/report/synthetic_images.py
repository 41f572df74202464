"""Summarise the memorisation gate's result for the report."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tskd.errors import TskdError
from tskd.evaluation.report.figures import Picture
from tskd.evaluation.report.tables import Table

_NAMES = ("synthetic", "training_case", "feature_twin", "reason")  # texts, though some look like numbers


def memorisation_table(folder: Path) -> Table | None:
    """Return smallest, median and largest of each measure in memorisation.csv, and the number of flagged images.

    Args:
        folder: folder of the synthetic images; memorisation.json adds the rule and the held-out real images.

    Returns:
        The table, or None where there is no memorisation.csv.
    """
    path = folder / "memorisation.csv"
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8") as stream:
        records = list(csv.DictReader(stream))
    if not records:
        raise TskdError(f"{path}: expected one line an image, found none. Run the memorisation check again.")
    rows, notes = [], []
    for name in (name for name in records[0] if name not in _NAMES):
        values = [record[name] for record in records]
        if set(values) <= {"yes", "no"}:
            notes.append(f"{name.capitalize()}: {values.count('yes')} of {len(values)} synthetic images")
            continue
        rows.append([name.replace("_", " "), *_spread(path, name, values)])
    summary = folder / "memorisation.json"
    if summary.is_file():
        notes += _rule(json.loads(summary.read_text(encoding="utf-8")))
    columns = ["Measure", "Smallest", "Median", "Largest"]
    title = f"Memorisation check of {len(records)} synthetic images"
    return Table(title, columns, rows, note="".join(f"{note}. " for note in notes).strip())


def memorisation_picture(folder: Path, figures: Path) -> Picture | None:
    """Copy the gate's sheet of nearest neighbours beside the other figures; None without one."""
    sheet = folder / "memorisation.png"
    if not sheet.is_file():
        return None
    figures.mkdir(parents=True, exist_ok=True)
    path = figures / "memorisation.png"
    shutil.copyfile(sheet, path)
    with Image.open(path) as image:
        width = image.width
    title = "Synthetic images and the training images most like them"
    alt = "Pairs of a synthetic image (left) and the training image most like it (right), most alike first."
    return Picture(path, title, alt, "Left: synthetic. Right: training image. The number is their similarity.", width)


def _spread(path: Path, name: str, values: Sequence[str]) -> list[str]:
    try:
        numbers = np.array(values, dtype=float)
    except ValueError as error:
        raise TskdError(f"{path}, column {name!r}: expected numbers, or yes and no; found {error}.") from error
    return [f"{number:.4g}" for number in np.quantile(numbers, [0, 0.5, 1])]


def _rule(summary: Mapping[str, Any]) -> list[str]:
    notes = []
    if summary.get("quantile") is not None:
        quantile = f"{summary.get('level', summary['quantile']):.4g}"
        notes.append(f"Threshold: quantile {quantile} of the similarity of real images of different patients")
    held_out = summary.get("held_out") or {}
    if {"flagged", "images"} <= held_out.keys():
        notes.append(f"Held-out real images flagged by the same rule: {held_out['flagged']} of {held_out['images']}")
    return notes
