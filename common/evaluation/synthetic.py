"""What the memorisation gate measured, in short."""

import csv
from pathlib import Path

import numpy as np

from common.errors import TskdError

from .tables import Table


def memorisation_table(path: Path) -> Table | None:
    """Smallest, median and largest value of each number in memorisation.csv, and the counts of each yes or no.

    Args:
        path: memorisation.csv, one line an image; other columns (names of images) are left out.

    Returns:
        The table, or None where there is no such file.
    """
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8") as stream:
        records = list(csv.DictReader(stream))
    if not records:
        raise TskdError(f"{path}: expected one line an image, found none. Run the memorisation check again.")
    rows = []
    for name in records[0]:
        values = [record[name] for record in records]
        if {value.lower() for value in values} <= {"true", "false", "yes", "no"}:
            yes = sum(value.lower() in ("true", "yes") for value in values)
            rows.append([name.replace("_", " "), f"yes {yes}", f"no {len(values) - yes}", "–"])
            continue
        try:
            numbers = np.array([float(value) for value in values])
        except (TypeError, ValueError):
            continue
        rows.append([name.replace("_", " "), *(f"{number:.4g}" for number in np.quantile(numbers, [0, 0.5, 1]))])
    columns = ["Measure", "Smallest", "Median", "Largest"]
    return Table(f"Memorisation check of {len(records)} synthetic images", columns, rows) if rows else None
