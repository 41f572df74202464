"""Write the sections of the report: words and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tskd.evaluation.reliability import Pooled
from tskd.evaluation.report import run_tables, tables
from tskd.evaluation.report.figures import Picture
from tskd.evaluation.report.model_cards import Card
from tskd.evaluation.report.runs import Run, distance_unit
from tskd.evaluation.report.summary import Comparison, Number, notes_of_tests
from tskd.evaluation.report.tables import Table, count
from tskd.evaluation.rows import OVERALL


@dataclass
class Section:
    """A part of the report: text, notes, tables, pictures and model cards, in this order."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.text or self.tables or self.pictures or self.notes or self.cards)


def summary(numbers: Sequence[Number], comparisons: Sequence[Comparison]) -> Section:
    """Return the highest mean Dice of each dataset, and the differences in Dice from the reference."""
    text = []
    for dataset in dict.fromkeys(number.dataset for number in numbers):
        dice = [n for n in numbers if (n.dataset, n.label, n.metric) == (dataset, OVERALL, "dice")]
        best = max(dice, key=lambda number: number.mean)
        score = tables.with_interval(best.mean, best.low, best.high, "dice")
        highest = f"highest mean Dice {score}" if len(dice) > 1 else f"mean Dice {score}"
        text.append(
            f"{dataset}: {highest} ({best.method}, {best.budget} labels; {count(best.patients, 'patient')}, "
            f"{count(best.seeds, 'seed')})."
        )
    for item in comparisons:
        if item.metric == "dice":
            gap = item.test.difference
            text.append(
                f"{item.arm.dataset}, {item.arm.budget} labels: {item.arm.method} minus {item.reference}, mean Dice "
                f"{tables.with_interval(gap.mean, gap.low, gap.high, 'dice')}, n = {item.test.n}, "
                f"p (Holm) {tables.format_p(item.p_holm)}."
            )
    return Section("Summary", text)


def what_was_run(runs: Sequence[Run], data: Mapping[str, Any] | None) -> Section:
    """Return runs, sizes of the split, stages with their settings and time, size of the networks, software."""
    section = Section("What was run", tables=[run_tables.runs_table(runs)])
    if data:
        section.tables.append(run_tables.data_table(data))
        source = [
            f"{key}: {value}" for key, value in data["provenance"].items() if isinstance(value, str | int | float)
        ]
        section.text += [f"Data {data['name']} ({data['modality']}). " + "; ".join(source)]
    section.tables += [table for table in (run_tables.stages_table(runs), run_tables.cost_table(runs)) if table]
    software = {
        f"Python {content['python']}, " + ", ".join(f"{name} {v}" for name, v in content.get("packages", {}).items())
        for run in runs
        for content in run.versions.values()
        if "python" in content
    }
    section.text += [f"Software: {line}." for line in sorted(software)]
    return section


def results(
    dataset: str,
    runs: Sequence[Run],
    numbers: Sequence[Number],
    comparisons: Sequence[Comparison],
    reference: str | None,
    pooled: Pooled,
    several: bool,
) -> Section:
    """Return the tables of one dataset; `several` says whether the report has others."""
    dataset_numbers = [number for number in numbers if number.dataset == dataset]
    pairs = [item for item in comparisons if item.arm.dataset == dataset]
    dataset_runs = [run for run in runs if any(arm.dataset == dataset for arm, _ in run.arms)]
    unit = distance_unit(runs, dataset)
    section = Section(
        f"Results: {dataset}" if several else "Results", tables=[tables.methods_table(dataset_numbers, unit)]
    )
    section.tables += [tables.organ_table(dataset_numbers, metric, unit) for metric in ("dice", "hd95")]
    tolerances = sorted({float(run.summary["tolerance_mm"]) for run in dataset_runs if "tolerance_mm" in run.summary})
    section.tables.append(tables.every_metric_table(dataset_numbers, unit, tolerances))
    if pairs:
        section.tables.append(tables.comparison_table(pairs, unit))
    elif reference:
        section.notes.append(f"No paired comparison: no other method shares a number of labels with {reference}.")
    if dataset_pooled := {arm: regions for arm, regions in pooled.items() if arm.dataset == dataset}:
        section.tables.append(tables.calibration_table(dataset_pooled))
    if len(tolerances) > 1:
        tolerance_list = ", ".join(f"{tolerance:g}" for tolerance in tolerances)
        section.notes.append(
            f"Surface Dice: the runs have different tolerances ({tolerance_list}), so do not compare it."
        )
    section.notes += _warnings(dataset_numbers, pairs, dataset_runs)
    return section


def _warnings(numbers: Sequence[Number], pairs: Sequence[Comparison], runs: Sequence[Run]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for number in numbers:
        if number.note and (number.label, number.metric) == (OVERALL, "dice"):
            notes.setdefault(number.note, []).append(f"{number.method}, {number.budget} labels")
    every = len(dict.fromkeys((number.method, number.budget) for number in numbers))
    lines = [
        f"Mean Dice{'' if len(arms) == every else ' of ' + '; '.join(arms)}: {note}." for note, arms in notes.items()
    ]
    lines += [f"Paired tests{of and f' of {of}'}: {note}." for note, of in notes_of_tests(pairs).items()]
    for organ, cases in _absent(runs).items():
        lines.append(f"{organ}: in neither truth nor prediction of up to {count(cases, 'case')}, which have no score.")
    return lines


def _absent(runs: Sequence[Run]) -> dict[str, int]:
    absent_cases: dict[str, int] = {}
    for run in runs:
        for organ, values in run.summary.get("labels", {}).items():
            if values.get("absent_cases") and organ != OVERALL:
                absent_cases[organ] = max(absent_cases.get(organ, 0), int(values["absent_cases"]))
    return absent_cases
