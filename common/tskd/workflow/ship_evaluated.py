"""Ship a run together with what its evaluation says: Dice with intervals, calibration, known failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tskd.data.io.identities import code_of
from tskd.evaluation.rows import MetricRow, organs, patient_values, read_rows
from tskd.evaluation.statistics import bootstrap_interval
from tskd.export.ship import ship_run

_CALIBRATION = {"ece": "expected calibration error", "ece_foreground": "of the structures", "brier": "Brier score"}
WORST = 3  # patients named among the known failures


def ship(
    bundle: str | Path,
    run: str | Path,
    output: str | Path,
    dataset_file: str | Path,
    model: str | Path | None = None,
    force: bool = False,
) -> Path:
    """Ship a run as `ship_run` does, its evaluation in the README; print which patients its codes stand for."""
    metrics = Path(run) / "metrics.csv"
    rows = read_rows(metrics) if metrics.is_file() else []
    written = ship_run(bundle, run, output, dataset_file, model, force, accuracy(rows) if organs(rows) else ())
    for patient in worst_patients(rows):
        print(f"among the worst: patient {patient}, in the README {code_of(patient)}")
    return written


def worst_patients(rows: Sequence[MetricRow]) -> list[str]:
    """Return the patients of the lowest mean Dice, the lowest first."""
    dice = patient_values(rows, "dice") if organs(rows) else {}
    return sorted(dice, key=dice.__getitem__)[:WORST]


def accuracy(rows: Sequence[MetricRow]) -> list[str]:
    """Return lines of Markdown on an evaluation; patients are named by codes.

    Args:
        rows: of one run's metrics.csv, with a Dice.
    """
    lines = ["| structure | mean Dice | 95% interval | patients | lowest |", "| --- | ---: | --- | ---: | ---: |"]
    everything = {"all": patient_values(rows, "dice")}
    note = ""
    for name, values in {
        **everything,
        **{organ: patient_values(rows, "dice", organ) for organ in organs(rows)},
    }.items():
        interval = bootstrap_interval(list(values.values()))
        given = "-" if interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
        note = note or interval.note
        lines.append(f"| {name} | {interval.mean:.3f} | {given} | {interval.n} | {min(values.values()):.3f} |")
    method = f"Intervals are bootstrap intervals (BCa) over the patients{f' ({note})' if note else ''}."
    return [*lines, "", method, _calibration(rows), _failures(rows)]


def _calibration(rows: Sequence[MetricRow]) -> str:
    values = {metric: patient_values(rows, metric) for metric in _CALIBRATION}
    known = [f"{_CALIBRATION[key]} {sum(found.values()) / len(found):.3f}" for key, found in values.items() if found]
    return f"Calibration, mean over patients: {', '.join(known)}." if known else "Its calibration was not measured."


def _failures(rows: Sequence[MetricRow]) -> str:
    dice, said = patient_values(rows, "dice"), []
    for patient in worst_patients(rows):
        of_patient = {organ: patient_values(rows, "dice", organ) for organ in organs(rows)}
        organ, value = min(
            ((organ, values[patient]) for organ, values in of_patient.items() if patient in values),
            key=lambda pair: pair[1],
        )
        said.append(f"{code_of(patient)} {dice[patient]:.3f} (lowest {organ}, {value:.3f})")
    return f"Known failures: the patients of the lowest Dice, by code: {', '.join(said)}."
