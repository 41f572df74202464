"""The results page and its CSVs."""

from pathlib import Path

import pytest

from common.errors import TskdError
from common.evaluation.results import add_rows, write_tables
from common.evaluation.rows import MetricRow, read_rows, write_rows

PAGE = Path(__file__).resolve().parents[3] / "docs" / "results.md"


def _run(folder: Path, method: str, value: float) -> Path:
    folder.mkdir()
    rows = [MetricRow("toy", "8", method, "0", g, g, "liver", "dice", value + i / 10) for i, g in enumerate("ab")]
    write_rows(folder / "metrics.csv", rows)
    return folder


def test_tables_of_the_results_page_equal_the_csvs(tmp_path: Path) -> None:
    before = PAGE.read_text(encoding="utf-8")
    copy = tmp_path / "results.md"
    copy.write_text(before, encoding="utf-8")
    (tmp_path / "results").symlink_to(PAGE.parent / "results")
    write_tables(copy)
    assert copy.read_text(encoding="utf-8") == before


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


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table of results/none.csv -->\n<!-- end -->\n")
    with pytest.raises(TskdError, match=r"none\.csv"):
        write_tables(page)
