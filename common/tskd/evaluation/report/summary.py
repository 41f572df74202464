"""Every number of the report, computed in one place from the rows of metrics.csv."""

import csv
from collections.abc import Iterable
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


def all_numbers(arms: Arms) -> list[Number]:
    """Numbers of each arm, for each organ and over all organs, and each metric it has."""
    found = []
    for arm, seeds in arms.items():
        rows = [row for own in seeds.values() for row in own]
        for label in [OVERALL, *organs(rows)]:
            for metric in dict.fromkeys(row.metric for row in rows if label in (OVERALL, row.label)):
                found.append(_number(arm, seeds, label, metric))
    return found


def seed_averages(seeds: dict[str, list[MetricRow]], metric: str, label: str = OVERALL) -> dict[str, float]:
    """Value of each patient, averaged over the seeds that have it."""
    runs = [patient_values(rows, metric, label) for rows in seeds.values()]
    patients = dict.fromkeys(patient for values in runs for patient in values)
    return {p: float(np.mean([values[p] for values in runs if p in values])) for p in patients}


def choose_reference(arms: Arms, reference: str | None) -> str | None:
    """The method that the others are compared with: the one asked for, else the first, else None for one method."""
    methods = list(dict.fromkeys(arm.method for arm in arms))
    if reference is not None and reference not in methods:
        raise TskdError(f"reference: expected one of the methods {', '.join(methods)}; found {reference!r}.")
    return reference or (methods[0] if len(methods) > 1 else None)


def compare(arms: Arms, reference: str) -> list[Comparison]:
    """Each arm against the reference at its budget; Holm's correction within a dataset and metric."""
    found: list[Comparison] = []
    for dataset in dict.fromkeys(arm.dataset for arm in arms):
        for metric in COMPARED:
            pairs = []
            for arm, seeds in arms.items():
                other = arms.get(Arm(arm.dataset, arm.budget, reference))
                if arm.dataset != dataset or arm.method == reference or other is None:
                    continue
                values, base = seed_averages(seeds, metric), seed_averages(other, metric)
                if set(values) & set(base):
                    pairs.append((arm, values, base))
            tests = [(arm, paired_test(a, b, comparisons=len(pairs))) for arm, a, b in pairs]
            adjusted = holm([test.p for _, test in tests])
            found += [
                Comparison(arm, reference, metric, test, p) for (arm, test), p in zip(tests, adjusted, strict=True)
            ]
    return found


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
