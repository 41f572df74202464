"""The results page and its CSVs."""

import shutil
from pathlib import Path

import pytest

from tskd.errors import TskdError
from tskd.evaluation.report.results_page import add_rows, tables, write_tables
from tskd.evaluation.report.runs import Run, collect
from tskd.evaluation.report.summary import compare
from tskd.evaluation.report.tables import with_interval
from tskd.evaluation.rows import MetricRow, read_rows, write_rows

DOCS = Path(__file__).resolve().parents[4] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "\n<!-- table of " in page.read_text(encoding="utf-8"))


def _run(folder: Path, method: str, value: float) -> Path:
    folder.mkdir()
    rows = [MetricRow("toy", "8", method, "0", g, g, "liver", "dice", value + i / 10) for i, g in enumerate("ab")]
    write_rows(folder / "metrics.csv", rows)
    return folder


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the docs, with every table written again from its CSV."""
    copy = tmp_path_factory.mktemp("pages") / "docs"
    shutil.copytree(DOCS, copy, ignore=shutil.ignore_patterns("*.png", "*.svg"))
    write_tables(copy)
    return copy


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_every_page_equal_the_csvs(page: Path, rewritten: Path) -> None:
    """A block whose numbers are not those of its CSV, or whose command is another, fails here."""
    assert (rewritten / page.relative_to(DOCS)).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_there_is_a_page_with_results() -> None:
    assert DOCS / "results/chaos_20_labels.md" in PAGES


def test_adding_a_run_again_replaces_its_rows(tmp_path: Path) -> None:
    csv = tmp_path / "results" / "toy.csv"
    add_rows(csv, [_run(tmp_path / "one", "scratch", 0.5), _run(tmp_path / "two", "tskd", 0.7)])
    add_rows(csv, [_run(tmp_path / "three", "scratch", 0.6)])
    assert sorted((row.method, row.value) for row in read_rows(csv)) == [
        ("scratch", 0.6), ("scratch", 0.7), ("tskd", 0.7), ("tskd", 0.7999999999999999)
    ]  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table of results/toy.csv -->\nold\n<!-- end -->\nafter\n")
    write_tables(page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| scratch | 8 | 0 | 0.600 | 0.700 |" in text


def test_all_pages_of_a_folder_are_written(tmp_path: Path) -> None:
    for name in ("one", "two"):
        add_rows(tmp_path / "docs/results/toy.csv", [_run(tmp_path / name, name, 0.5)])
        (tmp_path / f"docs/results/{name}.md").write_text(f"<!-- table of toy.csv methods={name} -->\n<!-- end -->\n")
    write_tables(tmp_path / "docs")
    text = (tmp_path / "docs/results/two.md").read_text()
    assert "| two | 8 | 0 | 0.500 | 0.600 |" in text
    assert (
        "Command: `tskd results docs/results/two.md`; rows are added with `--add RUN... --csv docs/results/toy" in text
    )


def test_a_run_that_was_not_evaluated_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path / "one", "scratch", 0.5)
    with pytest.raises(TskdError, match=r"two: expected evaluated runs, found no metrics\.csv"):
        add_rows(tmp_path / "toy.csv", [run, tmp_path / "two"])
    assert not (tmp_path / "toy.csv").exists()


def _page(folder: Path, opening: str) -> Path:
    rows = []
    for shift, (method, budget) in enumerate((m, b) for m in ("scratch", "tskd", "other") for b in ("8", "16")):
        for patient in range(6):
            key = ("toy", budget, method, "0", str(patient), str(patient))
            value = 0.5 + patient / 100 + shift / 20 * (1 + patient / 50)
            rows += [MetricRow(*key, o, m, value) for o in ("liver", "spleen") for m in ("dice", "hd95", "nsd")]
            rows.append(MetricRow(*key, "all organs", "ece", value / 10))
    write_rows(folder / "toy.csv", rows)
    page = folder / "page.md"
    page.write_text(f"<!-- table of toy.csv{opening} -->\n<!-- end -->\nbetween\n")
    return page


def test_options_choose_what_is_shown(tmp_path: Path) -> None:
    page = _page(tmp_path, " methods=scratch,tskd budgets=16 metrics=dice,nsd,ece reference=scratch")
    write_tables(page)
    once = page.read_text()
    write_tables(page)
    assert page.read_text() == once
    lines = once.splitlines()
    assert not [line for line in lines if line.startswith("| other") or "| 8 |" in line or "HD95" in line]
    assert "**Surface Dice by organ, mean [95%]**" in lines
    assert "Mean Calibration error [95%]" in once
    assert "**Difference from scratch**" in lines
    arms = collect([Run(tmp_path, read_rows(tmp_path / "toy.csv"))])
    chosen = {arm: seeds for arm, seeds in arms.items() if arm.budget == "16" and arm.method != "other"}
    (test,) = [c.test for c in compare(chosen, "scratch") if c.metric == "dice"]
    gap = with_interval(test.difference.mean, test.difference.low, test.difference.high, "dice")
    assert f"| tskd | 16 | Dice | 6 | {gap} | better | +1.00 | 0.0312 | 0.0312 |" in lines
    assert f"Command: `tskd results {tmp_path.name}/page.md`" in once


def test_patients_are_chosen(tmp_path: Path) -> None:
    page = _page(tmp_path, " methods=scratch budgets=8 patients=1,3 show=methods,patients")
    write_tables(page)
    lines = page.read_text().splitlines()
    assert any(line.startswith("| scratch | 8 | 1 | 2 | 0.520 [") for line in lines)
    assert "| Method | Labels | Seed | 1 | 3 |" in lines
    assert "| scratch | 8 | 0 | 0.510 | 0.530 |" in lines


def test_tables_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    page = _page(tmp_path, " reference=scratch show=methods,comparison")
    write_tables(page)
    titles = [line for line in page.read_text().splitlines() if line.startswith("**")]
    assert titles == ["**Methods, mean over all organs**", "**Difference from scratch**"]


def test_distances_of_images_without_spacing_are_in_pixels(tmp_path: Path) -> None:
    for opening, unit in (("", "mm"), (" unit=pixels", "pixels")):
        page = _page(tmp_path, f" reference=scratch{opening}")
        write_tables(page)
        text = page.read_text()
        assert f"Mean HD95, {unit} [95%]" in text
        assert f"**HD95 by organ, {unit}, mean [95%]**" in text
        assert f"| HD95, {unit} |" in text
        assert (", mm" in text) == (unit == "mm")


@pytest.mark.parametrize(
    ("opening", "words"),
    [
        (" methods=scratch,tsdk", "expected methods among scratch, tskd, other; found tsdk"),
        (" budgets=9", "expected budgets among 8, 16"),
        (" patients=7", "expected patients among 0, 1, 2, 3, 4, 5; found 7"),
        (" metrics=f1", "expected metrics among"),
        (" method=tskd", "found 'method=tskd'"),
        (" unit=cm", "expected unit=mm or unit=pixels; found 'cm'"),
        (" show=methods,all", "expected show=methods,organs,comparison,patients or some of these; found all"),
        (" methods=tskd reference=scratch", "found 'scratch'"),
        (" -->\n<!-- table of toy.csv", "not closed"),
    ],
)
def test_unknown_options_are_named(opening: str, words: str, tmp_path: Path) -> None:
    page = _page(tmp_path, opening)
    before = page.read_text()
    with pytest.raises(TskdError, match=words):
        write_tables(page)
    assert page.read_text() == before


def test_folds_add_up_and_the_same_case_twice_is_refused(tmp_path: Path) -> None:
    csv, folds = tmp_path / "toy.csv", []
    for fold, patients in enumerate(("ab", "cd")):
        folds.append(tmp_path / f"fold{fold}")
        rows = [MetricRow("toy", "8", "tskd", "0", p, p, "liver", "dice", 0.5) for p in patients]
        write_rows(folds[-1] / "metrics.csv", rows)
        add_rows(csv, [folds[-1]])
    assert [row.case for row in read_rows(csv)] == list("abcd")
    shutil.copytree(folds[0], tmp_path / "copy")
    with pytest.raises(TskdError, match="both hold case"):
        add_rows(csv, [folds[0], tmp_path / "copy"])


def test_datasets_of_one_csv_have_their_own_tables(tmp_path: Path) -> None:
    rows = [MetricRow(d, "8", "m", "0", p, p, "liver", "dice", v) for d, v in (("x", 0.4), ("y", 0.8)) for p in "ab"]
    write_rows(tmp_path / "two.csv", rows)
    text = tables(tmp_path / "two.csv")
    assert text.index("Dataset `x`") < text.index("0.400 [") < text.index("Dataset `y`") < text.index("0.800 [")


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table of results/none.csv -->\n<!-- end -->\n")
    with pytest.raises(TskdError, match=r"none\.csv"):
        write_tables(page)
