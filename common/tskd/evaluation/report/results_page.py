"""Write the tables of the pages in docs/results from the CSVs beside them, never by hand.

A block stands between `<!-- table of NAME.csv -->` and `<!-- end -->`; the text around it is kept. The opening
comment may hold options: `methods=a,b`, `budgets=40,80` and `patients=2,10` choose rows, `metrics=dice,hd95` chooses
columns, `reference=scratch` adds the paired comparison with that method, `show=methods,comparison` leaves other tables
out. A block `<!-- label efficiency of A.csv,B.csv methods=... reference=tskd baseline=supervised figure=PATH -->` draws
Dice against labels as PATH.svg and PATH.png, and holds the table of labels saved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tskd.errors import TskdError
from tskd.evaluation.metrics import METRICS
from tskd.evaluation.report.label_efficiency import draw, labels_saved, labels_saved_table
from tskd.evaluation.report.runs import Run, collect
from tskd.evaluation.report.summary import all_numbers, choose_reference, compare, notes_of_tests
from tskd.evaluation.report.tables import Table, cells, comparison_table, methods_table, organ_table
from tskd.evaluation.rows import MetricRow, natural, organs, patient_values, read_rows, write_rows
from tskd.files import write_text

OPTIONS = ("methods", "budgets", "patients", "metrics", "reference", "show", "unit")
SHOW = ("methods", "organs", "comparison", "patients")
PATIENT_COLUMNS = 20  # beyond, there is no table of patients
EFFICIENCY_OPTIONS = ("methods", "reference", "baseline", "figure")
_OPENING = re.compile(r"^<!-- (?:table|label efficiency) of ", re.MULTILINE)
_BLOCK = re.compile(
    r"^(<!-- (?P<kind>table|label efficiency) of (?P<csv>\S+)(?P<options>[^>\n]*?) -->\n)(?:(?!<!--).)*(<!-- end -->)",
    re.DOTALL | re.MULTILINE,
)


def add_rows(csv: str | Path, runs: Sequence[str | Path]) -> None:
    """Add the rows of evaluated runs to a results CSV; rows of the same method, budget, seed and case are replaced.

    Raises:
        TskdError: a run without metrics.csv, or two that hold the same case of the same method, budget and seed.
    """
    csv = Path(csv)
    if missing := [str(run) for run in runs if not (Path(run) / "metrics.csv").is_file()]:
        raise TskdError(
            f"{', '.join(missing)}: expected evaluated runs, found no metrics.csv (evaluate.json writes it)"
        )
    evaluated = [Run(Path(run), read_rows(Path(run) / "metrics.csv")) for run in runs]
    collect(evaluated)
    new = [row for run in evaluated for row in run.rows]
    replaced = {_key(row) for row in new}
    old = read_rows(csv) if csv.is_file() else []
    csv.parent.mkdir(parents=True, exist_ok=True)
    write_rows(csv, [row for row in old if _key(row) not in replaced] + new)


def write_tables(page: str | Path) -> None:
    """Rewrite every block of a Markdown page, or of all pages below a folder, from its CSV (path relative to the page).

    Raises:
        TskdError: a CSV that is not there, an option or a name that is not known, or a block without its end.
    """
    page = Path(page)
    if page.is_dir():
        for below in sorted(page.rglob("*.md")):
            write_tables(below)
        return
    text = page.read_text(encoding="utf-8")
    if len(_OPENING.findall(text)) != len(_BLOCK.findall(text)):
        raise TskdError(f"{page}: expected `<!-- end -->` after every `<!-- table of ... -->`; a block is not closed.")
    page_path = _from_docs(page)

    def block(match: re.Match[str]) -> str:
        csvs = [page.parent / csv for csv in match["csv"].split(",")]
        if match["kind"] == "label efficiency":
            content = label_efficiency(csvs, _options(page, match["options"], EFFICIENCY_OPTIONS), page.parent)
        else:
            content = tables(csvs[0], _options(page, match["options"]))
        csv = _from_docs(csvs[0])
        command = f"Command: `tskd results {page_path}`; rows are added with `--add RUN... --csv {csv}`.\n\n"
        return match[1] + content + command + match[5]

    write_text(page, _BLOCK.sub(block, text))


def _from_docs(path: Path) -> str:
    """Return the path from the folder `docs` on, where it is in one, or from its own folder."""
    parts = path.resolve().parts
    start = len(parts) - 1 - parts[::-1].index("docs") if "docs" in parts else -2
    return "/".join(parts[start:])


def tables(csv: str | Path, options: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a results CSV as Markdown, for each dataset: methods, each metric by organ, comparison, Dice by patient.

    Args:
        csv: file with the columns of metrics.csv.
        options: `methods`, `budgets`, `patients` and `metrics` to show (all, all, all, Dice and HD95 by default),
            `reference`, the tables to `show` (of `SHOW`, all by default), and the `unit` of distances, which the CSV
            does not have: `mm`, or `pixels` for images without a spacing.

    Raises:
        TskdError: no such file, a method, budget, patient or metric that it does not hold, or another table or unit.
    """
    csv, options = Path(csv), options or {}
    if not csv.is_file():
        raise TskdError(f"{csv}: expected a results CSV, found none")
    rows = read_rows(csv)
    for option, column in (("methods", "method"), ("budgets", "budget"), ("patients", "group")):
        chosen = _known(csv, option, options.get(option), [getattr(row, column) for row in rows])
        rows = [row for row in rows if getattr(row, column) in chosen]
    metrics = _known(csv, "metrics", options.get("metrics"), [row.metric for row in rows], ["dice", "hd95"])
    if (unit := ",".join(options.get("unit", ["mm"]))) not in ("mm", "pixels"):
        raise TskdError(f"{csv}: expected unit=mm or unit=pixels; found {unit!r}.")
    if not rows:
        raise TskdError(f"{csv}: expected rows of {dict(options)}, found none of these together.")
    show = options.get("show", SHOW)
    if unknown := [name for name in show if name not in SHOW]:
        raise TskdError(f"{csv}: expected show={','.join(SHOW)} or some of these; found {', '.join(unknown)}.")
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    parts = []
    for dataset in datasets:
        parts += [f"Dataset `{dataset}`\n"] if len(datasets) > 1 else []
        dataset_rows = [row for row in rows if row.dataset == dataset]
        parts += [
            _markdown(table) for table in _tables(csv, dataset_rows, metrics, options.get("reference", ()), show, unit)
        ]
    return "\n" + "\n".join(parts) + "\n"


def _tables(
    csv: Path,
    rows: list[MetricRow],
    metrics: Sequence[str],
    reference: Sequence[str],
    show: Sequence[str],
    unit: str,
) -> list[Table]:
    """Return the tables of one dataset."""
    arms = collect([Run(path=csv, rows=rows)])
    numbers = all_numbers(arms, metrics, by_organ="organs" in show)
    result_tables = []
    if "methods" in show:
        further_metrics = [metric for metric in METRICS if metric in metrics and metric != "dice"]
        result_tables.append(methods_table(numbers, unit, further_metrics))
    if "organs" in show:
        scored = set(organs(rows))
        by_organ = {row.metric for row in rows if row.label in scored}
        result_tables += [
            organ_table(numbers, metric, unit) for metric in METRICS if metric in metrics and metric in by_organ
        ]
    if "comparison" in show and reference:
        pairs = [pair for pair in compare(arms, choose_reference(arms, reference[0]) or "") if pair.metric in metrics]
        notes = [f"Note{of and f' on {of}'}: {note}." for note, of in notes_of_tests(pairs).items()]
        result_tables += [comparison_table(pairs, unit, notes)] if pairs else []
    if "patients" in show and len({row.group for row in rows}) <= PATIENT_COLUMNS:
        result_tables.append(_patient_table(rows))
    return result_tables


def label_efficiency(csvs: Sequence[Path], options: Mapping[str, Sequence[str]], folder: Path) -> str:
    """Draw Dice against labels, and return the table of labels saved as Markdown.

    Args:
        csvs: results CSVs, of one data set each or of several.
        options: `methods` in the order of the legend, `reference` that saves labels, `baseline` that would need more,
            and `figure`, a path from `folder` without its ending; budgets without a number are left out.
        folder: that of the page.

    Raises:
        TskdError: no such file, an option that is missing, or a method without rows.
    """
    if missing := [name for name in EFFICIENCY_OPTIONS if name not in options]:
        raise TskdError(f"label efficiency: expected {', '.join(f'{name}=...' for name in missing)} beside the CSVs")
    if absent := [str(csv) for csv in csvs if not csv.is_file()]:
        raise TskdError(f"{', '.join(absent)}: expected a results CSV, found none")
    rows = [row for csv in csvs for row in read_rows(csv) if row.budget != "all"]
    methods = _known(csvs[0], "methods", options["methods"], [row.method for row in rows])
    method, baseline = options["reference"][0], options["baseline"][0]
    _known(csvs[0], "methods", [method, baseline], methods)
    arms = collect([Run(path=csvs[0], rows=[row for row in rows if row.method in methods])])
    draw(arms, methods, folder / options["figure"][0])
    saved = labels_saved(arms, method, baseline)
    return "\n" + _markdown(labels_saved_table(saved, method, baseline)) + "\n" if saved else "\n"


def _options(page: Path, text: str, known: Sequence[str] = OPTIONS) -> dict[str, list[str]]:
    options = {}
    for option in filter(None, re.split(r"\s+(?=\w+=)", text.strip())):  # a value may have spaces: budgets=3 patients
        name, _, value = option.partition("=")
        if name not in known or not value:
            raise TskdError(f"{page}: expected options among {', '.join(f'{o}=...' for o in known)}; found {option!r}.")
        options[name] = value.split(",")
    return options


def _known(
    csv: Path, option: str, chosen: Sequence[str] | None, values: Sequence[str], default: Sequence[str] | None = None
) -> Sequence[str]:
    """Return `chosen`, or the default (everything), after a check that the CSV holds it."""
    known = list(dict.fromkeys(values))
    if unknown := [value for value in chosen or () if value not in known]:
        raise TskdError(f"{csv}: expected {option} among {', '.join(known)}; found {', '.join(unknown)}.")
    return chosen or default or known


def _patient_table(rows: Sequence[MetricRow]) -> Table:
    """Return one line a method, budget and seed, one column a patient: Dice over all organs."""
    runs: dict[tuple[str, str, str], list[MetricRow]] = {}
    for row in rows:
        runs.setdefault((row.method, row.budget, row.seed), []).append(row)
    frame = pd.DataFrame({run: patient_values(run_rows, "dice") for run, run_rows in runs.items()}).T
    frame = frame[sorted(frame.columns, key=natural)]
    columns = ["Method", "Labels", "Seed", *frame.columns]
    return Table("Mean Dice over the organs, by patient", columns, cells(frame, "dice"))


def _markdown(table: Table) -> str:
    rule = ["---" if i < table.texts else "---:" for i in range(len(table.columns))]
    lines = [
        f"**{table.title}**",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (table.columns, rule, *table.rows)),
        "",
    ]
    return "\n".join(lines + ([table.note, ""] if table.note else []))


def _key(row: MetricRow) -> tuple[str, str, str, str, str]:
    return row.dataset, row.budget, row.method, row.seed, row.case
