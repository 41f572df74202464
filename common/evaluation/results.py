"""Tables of docs/results.md, written from the CSVs beside it and never by hand.

A table stands between `<!-- table of results/NAME.csv -->` and `<!-- end -->`; the text around it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import TskdError

from .numbers import all_numbers
from .rows import MetricRow, natural, patient_values, read_rows, write_rows
from .runs import Run, collect
from .tables import Table, methods_table, organ_table, shown

_BLOCK = re.compile(r"(<!-- table of (?P<csv>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def add_rows(csv: str | Path, runs: Sequence[str | Path]) -> None:
    """Adds the rows of evaluated runs to a results CSV; rows of the same method, budget and seed are replaced."""
    csv = Path(csv)
    new = [row for run in runs for row in read_rows(Path(run) / "metrics.csv")]
    replaced = {_key(row) for row in new}
    old = read_rows(csv) if csv.is_file() else []
    csv.parent.mkdir(parents=True, exist_ok=True)
    write_rows(csv, [row for row in old if _key(row) not in replaced] + new)


def write_tables(page: str | Path) -> None:
    """Rewrites every table of a Markdown page from its CSV (path relative to the page).

    Raises:
        TskdError: when a CSV that the page names is not there.
    """
    page = Path(page)
    text = page.read_text(encoding="utf-8")
    page.write_text(_BLOCK.sub(lambda match: match[1] + tables(page.parent / match["csv"]) + match[3], text))


def tables(csv: str | Path) -> str:
    """Markdown of a results CSV: methods, Dice and HD95 by organ, Dice by patient."""
    if not Path(csv).is_file():
        raise TskdError(f"{csv}: expected a results CSV, found none")
    rows = read_rows(Path(csv))
    numbers = all_numbers(collect([Run(path=Path(csv), rows=rows)]))
    shown_tables = [
        methods_table(numbers, "mm"),
        organ_table(numbers, "dice", "mm"),
        organ_table(numbers, "hd95", "mm"),
        _patient_table(rows),
    ]
    return "\n" + "\n".join(_markdown(table) for table in shown_tables) + "\n"


def _patient_table(rows: Sequence[MetricRow]) -> Table:
    """One line a method, budget and seed, one column a patient: Dice over all organs."""
    patients = sorted({row.group for row in rows}, key=natural)
    lines = []
    for method, budget, seed in dict.fromkeys((row.method, row.budget, row.seed) for row in rows):
        values = patient_values([r for r in rows if (r.method, r.budget, r.seed) == (method, budget, seed)], "dice")
        cells = [shown(values[p], "dice") if p in values else "–" for p in patients]
        lines.append([method, budget, seed, *cells])
    return Table("Mean Dice over the organs, by patient", ["Method", "Labels", "Seed", *patients], lines)


def _markdown(table: Table) -> str:
    rule = ["---" if i < table.texts else "---:" for i in range(len(table.columns))]
    lines = [
        f"**{table.title}**",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (table.columns, rule, *table.rows)),
        "",
    ]
    return "\n".join(lines + ([table.note, ""] if table.note else []))


def _key(row: MetricRow) -> tuple[str, str, str, str]:
    return row.dataset, row.budget, row.method, row.seed
