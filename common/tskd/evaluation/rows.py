"""Read and write metrics.csv, and average its rows to a value per patient."""

import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, TextIO

import numpy as np

from tskd.errors import TskdError
from tskd.files import atomic

OVERALL = "all organs"


@dataclass(frozen=True)
class MetricRow:
    """One measured value: a line of metrics.csv."""

    dataset: str
    budget: str
    method: str
    seed: str
    group: str
    case: str
    label: str
    metric: str
    value: float


COLUMNS = tuple(field.name for field in fields(MetricRow))


def write_rows(path: Path, rows: Iterable[MetricRow]) -> None:
    """Write metrics.csv, or a compressed one (.csv.gz); an interrupted run leaves the previous file as it was."""
    with atomic(path) as draft, _open(draft, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*astuple(row)[:-1], repr(row.value)) for row in rows)


def read_rows(path: Path) -> list[MetricRow]:
    """Read metrics.csv, or a compressed one (.csv.gz).

    Raises:
        TskdError: missing columns, a value that is no finite number, or no rows.
    """
    try:
        with _open(path, "r") as stream:
            reader = csv.DictReader(stream)
            columns, records = list(reader.fieldnames or []), list(reader)
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, EOFError) as error:
        raise TskdError(f"{path}: expected a CSV table in UTF-8, found {error}. Evaluate the run again.") from error
    if missing := [name for name in COLUMNS if name not in columns]:
        raise TskdError(f"{path}: expected the columns {', '.join(COLUMNS)}; missing {', '.join(missing)}.")
    rows = [_row(path, number, record) for number, record in enumerate(records, start=2)]
    if not rows:
        raise TskdError(
            f"{path}: expected rows of metrics, found only a header. No case has an organ in truth or "
            "prediction; check the labels, and run the evaluation again."
        )
    return rows


def patient_values(rows: Iterable[MetricRow], metric: str, label: str = OVERALL) -> dict[str, float]:
    """Return the value of a metric for each patient of one run.

    Cases of a patient are averaged for each organ, then, for `OVERALL`, the organs that the patient has are averaged.

    Args:
        rows: rows of one (dataset, budget, method, seed).
        metric: name of the metric.
        label: organ, or `OVERALL`.

    Returns:
        Patient -> value, in order of the patient's name; patients without the organ are left out.
    """
    values_by_organ: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row.metric == metric and label in (OVERALL, row.label):
            values_by_organ.setdefault(row.group, {}).setdefault(row.label, []).append(row.value)
    return {
        group: _mean([_mean(values) for values in organs.values()])
        for group, organs in sorted(values_by_organ.items(), key=lambda item: natural(item[0]))
    }


def organs(rows: Iterable[MetricRow]) -> list[str]:
    """Return the labels that have a Dice score, in order of appearance."""
    return list(dict.fromkeys(row.label for row in rows if row.metric == "dice"))


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a natural-order sort key, by which patient 2 comes before patient 10."""
    parts: list[tuple[int, int | str]] = []
    digits = ""
    for character in f"{name}\0":
        if character.isdecimal():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits)))
            digits = ""
        parts.append((1, character))
    return tuple(parts)


def _mean(values: list[float]) -> float:
    return values[0] if len(values) == 1 else float(np.mean(values))  # most lists have one: NumPy takes 20 us


def _row(path: Path, number: int, record: dict[str, str]) -> MetricRow:
    if any(record[name] is None for name in COLUMNS):
        raise TskdError(f"{path}, line {number}: expected a value in each column, found fewer. Evaluate the run again.")
    try:
        value = float(record["value"])
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise TskdError(f"{path}, line {number}: expected a finite number in `value`, found {record['value']!r}.")
    return MetricRow(**{name: record[name] for name in COLUMNS[:-1]}, value=value)


@contextmanager
def _open(path: Path, mode: Literal["r", "w"]) -> Iterator[TextIO]:
    """Open a table as text; a compressed one has neither name nor time in it, so that equal rows are equal files."""
    if path.suffix != ".gz":
        with open(path, mode, newline="", encoding="utf-8") as stream:
            yield stream
        return
    with (
        open(path, f"{mode}b") as file,
        gzip.GzipFile("", f"{mode}b", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as stream,
    ):
        yield stream
