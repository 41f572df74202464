"""What a training that has ended says of itself: train_log.csv, and the settings in versions.json."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

METRIC = "validation_val_mean_dice"
FAR = 0.1  # behind the student in Dice: teachers 0.12 and 0.30 behind misled it (docs/results/quickstart_seeds.md)


def validation_dice(run: Path, best: bool = False) -> float | None:
    """Return mean Dice on the validation list of the model that a training has written; None where its log has none.

    Args:
        run: output_dir of a training, with train_log.csv.
        best: whether the best epoch was kept (`keep`: "best"), and not the last.
    """
    values = [float(row["value"]) for row in _log(run) if row["name"] == METRIC]
    return (max(values) if best else values[-1]) if values else None


def model_dice(run: Path) -> float | None:
    """Return `validation_dice` of the epoch that the training has kept, by its versions.json: the last without one."""
    return validation_dice(run, settings(run).get("keep") == "best")


def settings(run: Path) -> dict[str, Any]:
    """Return the settings that a run has used, by its versions.json; none without one."""
    file = run / "versions.json"
    return json.loads(file.read_text(encoding="utf-8")).get("settings", {}) if file.is_file() else {}


def trained_steps(run: Path) -> int:
    """Return the steps that a training has done, by its log; 0 without one."""
    return max((int(row["step"]) for row in _log(run)), default=0)


def _log(run: Path) -> list[dict[str, str]]:
    file = run / "train_log.csv"
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
