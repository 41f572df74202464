"""What distillation can bring and has brought, by the validation list: for `tskd distil`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

METRIC = "validation_val_mean_dice"
LEVEL = 0.01  # difference of mean Dice on validation that chance makes


def validation_dice(run: Path, best: bool = False) -> float | None:
    """Return mean Dice on the validation list of the model that a training has written; None where its log has none.

    Args:
        run: output_dir of a training, with train_log.csv.
        best: whether the best epoch was kept (`keep`: "best"), and not the last.
    """
    file = run / "train_log.csv"
    if not file.is_file():
        return None
    with open(file, newline="", encoding="utf-8") as stream:
        values = [float(row["value"]) for row in csv.DictReader(stream) if row["name"] == METRIC]
    return (max(values) if best else values[-1]) if values else None


def expectation(teachers: Sequence[Path], supervised: Path, best: bool = False) -> str:
    """Return what can be expected of the teachers, in a line; empty where no number is known.

    Args:
        teachers: output_dir of each one's training; a bundle has no log.
        supervised: output_dir of the training on the labels alone.
        best: as `validation_dice`, of the student.
    """
    student = validation_dice(supervised, best)
    known = [dice for run in teachers if (dice := validation_dice(run)) is not None]
    if student is None or not known:
        return ""
    comparison = (
        f"validation Dice: teacher {', '.join(f'{dice:.3f}' for dice in known)}, student of the labels {student:.3f}"
    )
    if max(known) > student + LEVEL:
        return f"{comparison}. The teacher is ahead: its soft labels may bring the student up to it."
    advice = "Train the teacher longer or larger, or take several teachers."
    return f"{comparison}. The teacher is not ahead, and where that was so distillation has brought nothing. {advice}"


def better(supervised: Path, distilled: Path, best: bool = False) -> tuple[Path, str]:
    """Return the run to ship, and a line that says what distillation has brought.

    The distilled student unless it is behind on validation: one that is worse must not ship.
    """
    before, after = validation_dice(supervised, best), validation_dice(distilled, best)
    if before is None or after is None:
        return distilled, "validation Dice: unknown, so nothing says whether distillation has brought anything."
    line = f"validation Dice: {before:.3f} by the labels alone, {after:.3f} with soft labels ({after - before:+.3f})."
    if after < before:
        return supervised, f"{line} Distillation has brought nothing: the student of the labels is the result."
    return distilled, line if after - before >= LEVEL else f"{line} That is within chance."


def better_round(before: Path, after: Path, number: int, best: bool = False) -> tuple[Path, str]:
    """Return the run to ship after a further round, the later one unless it is behind on validation, and a line."""
    first, second = validation_dice(before, best), validation_dice(after, best)
    if first is None or second is None:
        return after, f"round {number}: validation Dice unknown."
    line = f"round {number}: validation Dice {second:.3f} ({second - first:+.3f})."
    return (before, f"{line} {before.name} is the result.") if second < first else (after, line)
