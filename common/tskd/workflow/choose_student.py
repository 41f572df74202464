"""Which student of a study is shipped: the best on the validation list, whatever the test list says."""

from __future__ import annotations

import statistics
from pathlib import Path

from tskd.data.budget import groups_of
from tskd.data.datalist import read
from tskd.train_log import settings as used_settings
from tskd.train_log import validation_dice
from tskd.workflow.gain import LEVEL, too_few
from tskd.workflow.steps import Cell, Step
from tskd.workflow.study import TRAINED, Study, teachers_of

TUNED = TRAINED - {"method"}  # one of them is a key of a foundation model that was fine-tuned on the labels


def choose_student(study: Study, dataset: str) -> tuple[Step | None, str]:
    """Return the training whose model is shipped, and a line that says what distillation has brought on validation.

    Of the methods, at the largest budget of the first fold, that with the highest mean Dice on the validation list over
    its seeds, and of its seeds the best; where a training has no such number, or two are equal, the report's reference,
    else the last method.

    Args:
        study: the study.
        dataset: one of its data sets.
    """
    cells, reference = _largest(study, dataset), study.config.get("report", {}).get("reference")
    methods = [name for name in study.methods(dataset) if "teacher" not in study.config["methods"][name]]
    if not methods:
        return None, ""
    methods.sort(key=lambda name: name == reference)  # the last of equal ones is taken
    scores = {name: [_dice(study.model(cell, name)) for cell in cells] for name in methods}
    means = {name: statistics.fmean(known) for name, each in scores.items() if (known := _known(each))}
    if len(means) < len(methods):
        missing = ", ".join(name for name in methods if name not in means)
        return study.model(cells[0], methods[-1]), f"validation Dice: unknown of {missing}. Shipped: {methods[-1]}"
    best = max(reversed(methods), key=lambda name: means[name])
    seed = max(range(len(cells)), key=lambda number: scores[best][number] or 0.0)
    return study.model(cells[seed], best), _line(study, dataset, means, best)


def _line(study: Study, dataset: str, means: dict[str, float], best: str) -> str:
    settings, teachers = study.config["methods"], study.config.get("teachers", {})
    before = {name: study.config.get("pretraining", {}).get(settings[name].get("pretrain"), {}) for name in means}
    tuned = {name for name, teacher in teachers.items() if not TUNED.isdisjoint(teacher)}
    taught = [name for name in means if not tuned.isdisjoint(teachers_of(before[name]))]
    plain = [name for name in means if before[name].keys().isdisjoint({"teacher", "transfer"})]  # labels alone
    values = {**_teachers(study, dataset), **means}
    line = "validation Dice: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    if taught and plain:
        gain = max(means[name] for name in taught) - max(means[name] for name in plain)
        words = (
            "has made no difference beyond chance" if abs(gain) < LEVEL else "has helped" if gain > 0 else "has hurt"
        )
        few = too_few(_validation_patients(study, dataset))
        line += f". Distillation: {gain:+.3f} {few}" if few else f". Distillation {words} ({gain:+.3f})"
    for name in taught:
        if any(left_out := _left_out(study, dataset, name)):
            some = "" if all(left_out) else f" with {sum(left_out)} of {len(left_out)} seeds"
            line += f". The teacher of {name} was far behind{some}, and its soft labels were not asked"
    return f"{line}. The best student there is shipped: {best}"


def _left_out(study: Study, dataset: str, method: str) -> list[bool]:
    """Return, for each seed, whether the distillation of a method left its teacher out (`ratio_by_validation`)."""
    name = study.config["methods"][method]["pretrain"]
    used = [used_settings(Path(str(study.pretrain(cell, name).folder))) for cell in _largest(study, dataset)]
    return [keys.get("ratio") == 1 and keys.get("pseudo_ratio") == "agreement" for keys in used]


def _validation_patients(study: Study, dataset: str) -> int | None:
    """Return the patients of the validation list; None where its dataset.json is not there."""
    file = Path(study.prepare(_largest(study, dataset)[0]).output)
    return len({entry["group"] for entry in read(file)["validation"]}) if file.is_file() else None


def _teachers(study: Study, dataset: str) -> dict[str, float]:
    """Mean validation Dice of the methods that are teachers."""
    methods = [name for name in study.methods(dataset) if "teacher" in study.config["methods"][name]]
    each = {name: _known([_dice(study.model(cell, name)) for cell in _largest(study, dataset)]) for name in methods}
    return {name: statistics.fmean(known) for name, known in each.items() if known}


def _largest(study: Study, dataset: str) -> list[Cell]:
    """Return the cells of the largest budget in the first fold, one a seed."""
    cells = list(study.cells(dataset))
    first = max(cells, key=lambda cell: _budget_order(cell.budget))
    return [cell for cell in cells if (cell.fold, cell.budget) == (first.fold, first.budget)]


def _budget_order(budget: int | str) -> tuple[bool, bool, int]:
    """Sort key of budgets: all of the training list, then whole patients, then numbers of images."""
    patients = groups_of(budget)
    return budget == "all", patients is not None, patients or (budget if isinstance(budget, int) else 0)


def _dice(step: Step) -> float | None:
    options = step.command
    best = "--keep" in options and options[options.index("--keep") + 1] == "best"
    return validation_dice(Path(str(step.folder)), best)


def _known(values: list[float | None]) -> list[float]:
    """Return the values, or none where one of them is unknown."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []
