"""Commands on evaluated runs: scores, reports, results pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tskd.commands.arguments import Paths
from tskd.errors import TskdError


def score(
    dataset_file: Path,
    /,
    *,
    method: str,
    output: Path,
    prediction_key: str | None = None,
    predictions: Path | None = None,
    section: Literal["validation", "test"] = "test",
    budget: str = "no",
) -> None:
    """Score masks as a method: a second observer's in the data set, or those of another program.

    Args:
        dataset_file: dataset.json.
        method: name in the tables, for example second_observer or nnunet.
        output: folder for metrics.csv and summary.json.
        prediction_key: key of the entries whose files are scored, for example label_2nd.
        predictions: folder with masks of another program, called CASE.png, CASE.nii.gz or CASE_seg.nii.gz; of a volume
            also axial slices CASE_000.png, ..., as nnU-Net writes them for a data set of `tskd export --to nnunet`.
        section: list of the data set.
        budget: number of labels of the methods that it is compared with.
    """
    from tskd.evaluation.observers import score_labels

    print(score_labels(dataset_file, prediction_key, method, output, section, budget, predictions))


def report(
    runs: list[Path],
    /,
    *,
    output: Path,
    reference: str | None = None,
    dataset_file: Path | None = None,
    synthetic: Path | None = None,
    search: Path | None = None,
) -> None:
    """Write the HTML and Markdown report of evaluated runs.

    Args:
        runs: folders with metrics.csv.
        output: folder for the report.
        reference: method that the others are compared with.
        dataset_file: dataset.json, for the split and real images.
        synthetic: folder of synthetic images.
        search: folder of a search of settings, with trials.csv.
    """
    from tskd.evaluation import write_report

    if missing := sorted(str(run) for run in set(runs) if not (run / "metrics.csv").is_file()):
        raise TskdError(f"no metrics.csv in {', '.join(missing)}: run tskd evaluate --run RUN first")
    print(write_report(runs, output, reference=reference, dataset=dataset_file, synthetic=synthetic, search=search))


def results(page: Path, /, *, runs: Annotated[Paths, Parameter(name="--add")] = (), csv: Path | None = None) -> None:
    """Rewrite the tables of a results page, or of all pages of a folder, from their CSVs.

    Args:
        page: Markdown page, or folder of pages, for example docs/results.
        runs: evaluated runs whose rows are added first.
        csv: results CSV that --add writes to.
    """
    from tskd.evaluation.report.results_page import add_rows, write_tables

    if runs:
        if csv is None:
            raise TskdError("--add needs --csv, the results file that the rows go to")
        add_rows(csv, list(runs))
    write_tables(page)
    print(page)
