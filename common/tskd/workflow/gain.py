"""What distillation can bring and has brought, by the validation list: for `tskd distil`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tskd.train_log import FAR, model_dice, trained_steps, validation_dice

LEVEL = 0.01  # difference of mean Dice on validation that chance makes
FEW_PATIENTS = 5  # on the validation list, below which its Dice shows no difference, however large


def shipped_dice(bundle: Path) -> float | None:
    """Return the mean Dice that a bundle's metadata.json states of its evaluation, as `tskd ship` writes; None without.

    On which images that was it does not say.
    """
    file = bundle / "configs" / "metadata.json"
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["eval_metrics"]["mean_dice"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def expectation(
    teachers: Sequence[Path], supervised: Path, best: bool = False, pseudo_ratio: str | None = "agreement"
) -> str:
    """Return what can be expected of the teachers, in a line: also which of them nothing is known of.

    Args:
        teachers: output_dir of each one's training, whose log has its validation Dice, or a bundle.
        supervised: output_dir of the training on the labels alone.
        best: as `validation_dice`, of the student.
        pseudo_ratio: of the training that follows; None where it makes no pseudo-labels.
    """
    student = validation_dice(supervised, best)
    if student is None:
        return f"validation Dice: unknown of {supervised.name}, so nothing says what to expect of the teacher."
    known, words, rest = [], [], ""
    for run in teachers:
        if (dice := model_dice(run)) is not None:
            words.append(f"{dice:.3f}")
        elif (dice := shipped_dice(run)) is not None:
            words.append(f"{dice:.3f} ({run.name}, by its metadata.json and on the images of its evaluation)")
        else:
            rest += f" Nothing is known of the teacher {run.name}. {_measure(run)}"
            continue
        known.append(dice)
    if not known:
        return f"validation Dice: student of the labels {student:.3f}.{rest}"
    line = f"validation Dice: teacher {', '.join(words)}, student of the labels {student:.3f}. "
    if max(known) > student + LEVEL:
        line += "The teacher is ahead: its soft labels may bring the student up to it."
    elif max(known) > student - FAR:
        line += "The teacher is not ahead: such a one has brought -0.03 to 0.04 Dice (docs/results). "
        line += "Train the teacher longer or larger, or take several teachers."
    else:
        line += "The teacher is far behind, and its soft labels would mislead: train it longer or larger."
        if pseudo_ratio == "agreement" and len(teachers) == 1 and model_dice(teachers[0]) is not None:
            line += " It is not asked (pseudo_ratio): the student's own average labels the images."
        elif pseudo_ratio not in (None, "1", "1.0"):
            line += " To let the student's own average label the images: --distil pseudo_ratio=1."
    return line + rest


def _measure(teacher: Path) -> str:
    """Return how a teacher's Dice on the validation list is measured, in a sentence."""
    if not (teacher / "configs").is_dir():
        return f"To measure it: tskd evaluate --run {teacher} --section validation."
    return (
        f"To measure it: tskd predict {teacher} IMAGES --output MASKS (or the bundle's own inference), then "
        "tskd score DATASET.json --predictions MASKS --section validation --method teacher --output FOLDER."
    )


def too_few(patients: int | None) -> str:
    """Return the words on a validation list that is too short for a difference; empty where it is not, or unknown."""
    if patients is None or patients >= FEW_PATIENTS:
        return ""
    return f"on {'one validation patient' if patients == 1 else f'{patients} validation patients'}, too few to tell"


def better(
    supervised: Path, distilled: Path, best: bool = False, longer: Path | None = None, patients: int | None = None
) -> tuple[Path, str]:
    """Return the run to ship, and a line that says what distillation has brought.

    The distilled student unless it is behind on validation: one that is worse must not ship.

    Args:
        supervised: output_dir of the training on the labels, from whose student the other two start.
        distilled: of the joint training.
        best: as `validation_dice`.
        longer: of the training that goes on with the labels alone; None where there was none, which the line says.
        patients: on the validation list; the line claims nothing of few. None where it is not known.
    """
    alone = {run: validation_dice(run, best) for run in (supervised, longer) if run is not None}
    known, after = {run: dice for run, dice in alone.items() if dice is not None}, validation_dice(distilled, best)
    if len(known) < len(alone) or after is None:
        return distilled, "validation Dice: unknown, so nothing says whether distillation has brought anything."
    before = max(known, key=known.__getitem__)
    gain, few = after - known[before], too_few(patients)
    line = f"validation Dice: {known[supervised]:.3f} by the labels alone, "
    if longer is None:
        line += f"{after:.3f} with soft labels ({gain:+.3f})."
    else:
        line += f"{known[longer]:.3f} in {_steps(supervised, longer)}, {after:.3f} with soft labels in "
        line += f"{_steps(supervised, distilled)} ({gain:+.3f} on the better one)."
    if gain < 0:
        student = (
            "the student of the labels" if before == supervised else "the student of the labels, trained for longer,"
        )
        brought = f"That is {few}" if few else "Distillation has brought nothing"
        line += f" {brought}: {student} is the result."
    elif few:
        line += f" That is {few}."
    elif gain < LEVEL:
        line += " That is within chance."
    return (before if gain < 0 else distilled), line if longer is not None else line + unequal(supervised, distilled)


def unequal(supervised: Path, distilled: Path) -> str:
    """Return a sentence on a student that was trained for longer than that of the labels; empty where it was not."""
    if not trained_steps(distilled):
        return ""
    return (
        f" No fair comparison: the labels alone were trained for {_steps(supervised)}, the other student for "
        f"{_steps(supervised, distilled)}. --baseline trains the labels alone for as long."
    )


def _steps(*runs: Path) -> str:
    return f"{sum(map(trained_steps, runs)):,} steps"


def better_round(before: Path, after: Path, number: int, best: bool = False, remark: str = "") -> tuple[Path, str]:
    """Return the run to ship after a further round, the later one unless it is behind on validation, and a line.

    Args:
        before: the best run so far.
        after: that of the round.
        number: of the round.
        best: as `validation_dice`.
        remark: what the line ends with.
    """
    first, second = validation_dice(before, best), validation_dice(after, best)
    if first is None or second is None:
        return after, f"round {number}: validation Dice unknown."
    line = f"round {number}: validation Dice {second:.3f} ({second - first:+.3f})."
    return (before, f"{line} {before.name} is the result.{remark}") if second < first else (after, line + remark)
