"""Compute every number of the report, in one place, from the rows of metrics.csv."""

import csv
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from tskd.errors import TskdError
from tskd.evaluation.metrics import METRICS
from tskd.evaluation.report.runs import Arm, Arms
from tskd.evaluation.rows import OVERALL, MetricRow, organs, patient_values
from tskd.evaluation.statistics import PairedTest, hierarchical_interval, holm, paired_test
from tskd.files import atomic

COMPARED = ("dice", "hd95", "nsd")


@dataclass(frozen=True)
class Number:
    """One metric of one organ (or of all organs) for one arm."""

    dataset: str
    budget: str
    method: str
    label: str
    metric: str
    seeds: int
    patients: int
    mean: float
    low: float | None
    high: float | None
    median: float
    worst: float
    worst_patient: str
    interval: str
    note: str


@dataclass(frozen=True)
class Comparison:
    """An arm against the reference method at the same budget, over the mean of all organs."""

    arm: Arm
    reference: str
    metric: str
    test: PairedTest
    p_holm: float


def all_numbers(arms: Arms, metrics: Container[str] | None = None, by_organ: bool = True) -> list[Number]:
    """Return the numbers of each arm, for each organ and over all organs, and each metric it has.

    Args:
        arms: rows of metrics.csv.
        metrics: those that are wanted, all by default; Dice is always among them.
        by_organ: whether each organ is wanted, too.
    """
    numbers = []
    for arm, seeds in arms.items():
        rows = [row for seed_rows in seeds.values() for row in seed_rows]
        for label in [OVERALL, *(organs(rows) if by_organ else [])]:
            for metric in dict.fromkeys(row.metric for row in rows if label in (OVERALL, row.label)):
                if metrics is None or metric == "dice" or metric in metrics:
                    numbers.append(_number(arm, seeds, label, metric))
    return numbers


def seed_averages(seeds: dict[str, list[MetricRow]], metric: str, label: str = OVERALL) -> dict[str, float]:
    """Return the value of each patient, averaged over the seeds that have it."""
    runs = [patient_values(rows, metric, label) for rows in seeds.values()]
    patients = dict.fromkeys(patient for values in runs for patient in values)
    return {p: float(np.mean([values[p] for values in runs if p in values])) for p in patients}


def choose_reference(arms: Arms, reference: str | None) -> str | None:
    """Return the method to compare with: the one asked for, else the first, else None for one method."""
    methods = list(dict.fromkeys(arm.method for arm in arms))
    if reference is not None and reference not in methods:
        raise TskdError(f"reference: expected one of the methods {', '.join(methods)}; found {reference!r}.")
    return reference or (methods[0] if len(methods) > 1 else None)


def compare(arms: Arms, reference: str) -> list[Comparison]:
    """Test each arm against the reference at its budget; Holm's correction within a dataset and metric."""
    comparisons: list[Comparison] = []
    for dataset in dict.fromkeys(arm.dataset for arm in arms):
        for metric in COMPARED:
            pairs = []
            for arm, seeds in arms.items():
                reference_seeds = arms.get(Arm(arm.dataset, arm.budget, reference))
                if arm.dataset != dataset or arm.method == reference or reference_seeds is None:
                    continue
                values, reference_values = seed_averages(seeds, metric), seed_averages(reference_seeds, metric)
                if set(values) & set(reference_values):
                    pairs.append((arm, values, reference_values))
            tests = [(arm, paired_test(a, b, comparisons=len(pairs))) for arm, a, b in pairs]
            adjusted = holm([test.p for _, test in tests])
            comparisons += [
                Comparison(arm, reference, metric, test, p) for (arm, test), p in zip(tests, adjusted, strict=True)
            ]
    return comparisons


def write_numbers(path: Path, numbers: Iterable[Number]) -> None:
    """Write the numbers with all their digits, one line each."""
    with atomic(path) as draft, open(draft, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Number)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(number) for number in numbers)


def _number(arm: Arm, seeds: dict[str, list[MetricRow]], label: str, metric: str) -> Number:
    runs = {seed: patient_values(rows, metric, label) for seed, rows in seeds.items()}
    runs = {seed: values for seed, values in runs.items() if values}
    interval = hierarchical_interval(runs)
    if len(runs) < len(seeds):
        interval = replace(interval, note=f"{interval.note}; only {len(runs)} of {len(seeds)} seeds".strip("; "))
    patients = seed_averages(seeds, metric, label)
    sense = METRICS.get(metric, ("", "", 1))[2]
    badness = {1: lambda value: -value, -1: lambda value: value, 0: abs}[sense]
    worst = max(patients, key=lambda patient: badness(patients[patient]))
    return Number(
        *arm,
        label=label,
        metric=metric,
        seeds=len(runs),
        patients=len(patients),
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        median=float(np.median(list(patients.values()))),
        worst=patients[worst],
        worst_patient=worst,
        interval=interval.method,
        note=interval.note,
    )


def notes_of_tests(pairs: Iterable[Comparison]) -> dict[str, str]:
    """Return the notes of paired tests, each with the methods that it is of: empty where it is of all."""
    pairs = list(pairs)
    methods: dict[str, dict[str, None]] = {}
    for pair in pairs:
        if pair.test.note:
            methods.setdefault(pair.test.note, {})[pair.arm.method] = None
    every = {pair.arm.method for pair in pairs}
    return {note: "" if set(names) == every else ", ".join(names) for note, names in sorted(methods.items())}
