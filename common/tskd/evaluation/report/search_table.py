"""Write the trials of a hyperparameter search as a table."""

import csv
from pathlib import Path

from tskd.errors import TskdError
from tskd.evaluation.report.tables import Table

_FIRST = ("trial", "state", "value")


def search_table(folder: Path) -> Table:
    """Return one line a trial of `trials.csv`, in the order of the trials.

    Args:
        folder: folder with trials.csv: trial, state, value (empty where a trial did not finish), and each setting.

    Raises:
        TskdError: no trials.csv, no trial in it, or columns that are missing.
    """
    path = folder / "trials.csv"
    if not path.is_file():
        raise TskdError(f"{path}: expected the trials of a search, found no such file. Name the search's folder.")
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        names = list(reader.fieldnames or [])
        records = list(reader)
    if missing := [name for name in _FIRST if name not in names]:
        raise TskdError(f"{path}: expected the columns {', '.join(_FIRST)} and the settings; missing {missing}.")
    if not records:
        raise TskdError(f"{path}: expected at least one trial, found none. Run the search first.")
    settings = [name for name in names if name not in _FIRST]
    rows = [
        [record["trial"], record["state"].lower(), *(_number(record[name]) for name in ("value", *settings))]
        for record in records
    ]
    states = [row[1] for row in rows]
    note = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    columns = ["Trial", "State", "Value", *(name.replace("_", " ").replace("#", " ") for name in settings)]
    return Table(f"Trials of {folder.resolve().name}", columns, rows, texts=2, note=f"{len(rows)} trials: {note}.")


def _number(text: str | None) -> str:
    try:
        return f"{float(text or ''):.4g}"
    except ValueError:
        return text or "–"
