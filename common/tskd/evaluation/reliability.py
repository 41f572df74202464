"""Read and write calibration.csv, the confidence and entropy bins of each case, and pool them over cases."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tskd.errors import TskdError
from tskd.evaluation.calibration import BINS, REGIONS, SCALES, Calibration
from tskd.evaluation.report.runs import Arm, Run
from tskd.files import atomic


@dataclass(frozen=True)
class BinRow:
    """One bin of one case, a line of calibration.csv; empty bins have none."""

    dataset: str
    budget: str
    method: str
    seed: str
    group: str
    case: str
    region: str
    scale: str
    bin: int
    pixels: int
    total: float
    right: int


COLUMNS = tuple(field.name for field in fields(BinRow))
Pooled = dict[Arm, dict[tuple[str, str], NDArray]]


def bin_rows(key: tuple[str, str, str, str, str, str], case: Calibration) -> list[BinRow]:
    """Return the lines of a case; `key` is dataset, budget, method, seed, group and case."""
    return [
        BinRow(*key, region, scale, index, int(pixels), float(total), int(right))
        for (region, scale), bins in case.bins.items()
        for index, (pixels, total, right) in enumerate(bins)
        if pixels
    ]


def write_bins(path: Path, rows: Iterable[BinRow]) -> None:
    """Write calibration.csv."""
    with atomic(path) as draft, open(draft, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in rows)


def read_bins(path: Path) -> list[BinRow]:
    """Read calibration.csv.

    Raises:
        TskdError: missing columns, or a line that is no bin.
    """
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise TskdError(f"{path}: expected the columns {', '.join(COLUMNS)}; missing {', '.join(missing)}.")
        return [_row(path, number, record) for number, record in enumerate(reader, start=2)]


def pool(runs: Iterable[Run]) -> Pooled:
    """Return sums over the cases and seeds of each arm that has a calibration.csv, every pixel counting once."""
    pooled: Pooled = {}
    for run in runs:
        path = run.path / "calibration.csv"
        for row in read_bins(path) if path.is_file() else []:
            arm = Arm(row.dataset, row.budget, row.method)
            bins = pooled.setdefault(arm, {(r, s): np.zeros((BINS, 3)) for r in REGIONS for s in SCALES})
            bins[row.region, row.scale][row.bin] += row.pixels, row.total, row.right
    return pooled


def reliability_curve(bins: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Return mean confidence or entropy, accuracy, and share of all pixels, of the bins that have pixels."""
    pixels, total, right = bins[bins[:, 0] > 0].T
    return total / pixels, right / pixels, pixels / pixels.sum()


def write_pooled(path: Path, pooled: Mapping[Arm, Mapping[tuple[str, str], NDArray]]) -> None:
    """Write the curves of the report's calibration plot, one line a bin."""
    with atomic(path) as draft, open(draft, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("dataset", "budget", "method", "region", "scale", "mean", "accuracy", "pixels"))
        for arm, regions in pooled.items():
            for key, bins in regions.items():
                pixels = bins[bins[:, 0] > 0, 0].astype(int)
                for mean, accuracy, count in zip(*reliability_curve(bins)[:2], pixels, strict=True):
                    writer.writerow((*arm, *key, float(mean), float(accuracy), int(count)))


def _row(path: Path, number: int, record: Mapping[str, str]) -> BinRow:
    fault = TskdError(f"{path}, line {number}: expected a bin of a case, found {record}. Run the evaluation again.")
    try:
        index, pixels, right = (int(record[name]) for name in ("bin", "pixels", "right"))
        texts = {name: record[name] for name in COLUMNS[:8]}
        row = BinRow(**texts, bin=index, pixels=pixels, total=float(record["total"]), right=right)
    except (TypeError, ValueError) as error:
        raise fault from error
    known = row.region in REGIONS and row.scale in SCALES
    if not known or not 0 <= row.bin < BINS or not 0 <= row.right <= row.pixels:
        raise fault
    return row
