"""Write the trials of a hyperparameter search as a table."""

from pathlib import Path

import pandas as pd

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
    trials = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in _FIRST if name not in trials]:
        raise TskdError(f"{path}: expected the columns {', '.join(_FIRST)} and the settings; missing {missing}.")
    if trials.empty:
        raise TskdError(f"{path}: expected at least one trial, found none. Run the search first.")
    settings = [name for name in trials if name not in _FIRST]
    trials["state"] = trials["state"].str.lower()
    numbers = trials[["value", *settings]].map(_number)
    rows = pd.concat([trials[["trial", "state"]], numbers], axis=1).to_numpy().tolist()
    note = ", ".join(f"{number} {state}" for state, number in trials["state"].value_counts(sort=False).items())
    columns = ["Trial", "State", "Value", *(name.replace("_", " ").replace("#", " ") for name in settings)]
    return Table(f"Trials of {folder.resolve().name}", columns, rows, texts=2, note=f"{len(rows)} trials: {note}.")


def _number(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text or "–"
