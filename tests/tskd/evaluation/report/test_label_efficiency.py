"""Dice against labels: what a baseline needs, its interval, and the figure."""

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tskd.errors import TskdError
from tskd.evaluation.report.label_efficiency import budget_size, labels_needed, labels_saved
from tskd.evaluation.report.results_page import write_tables
from tskd.evaluation.report.runs import Arms, Run, collect
from tskd.evaluation.rows import MetricRow, write_rows

BLOCK = (
    "<!-- label efficiency of toy.csv methods=supervised,tskd reference=tskd baseline=supervised figure=img/toy -->\n"
    "<!-- end -->\n"
)


def _rows(dice: dict[tuple[str, str], dict[str, float]]) -> list[MetricRow]:
    return [
        MetricRow("toy", budget, method, "0", patient, patient, "liver", "dice", value)
        for (method, budget), values in dice.items()
        for patient, value in values.items()
    ]


def _arms(dice: dict[tuple[str, str], dict[str, float]]) -> Arms:
    return collect([Run(path=Path("toy"), rows=_rows(dice))])


def _alike(value: float, patients: str = "abcde") -> dict[str, float]:
    return dict.fromkeys(patients, value)


def test_halfway_between_two_budgets_is_their_geometric_mean() -> None:
    """Dice 0.7 lies halfway between 0.6 with 10 labels and 0.8 with 40: 20 labels; ends and beyond are said so."""
    curve = np.tile([0.6, 0.8, 0.7], (5, 1))
    needed = labels_needed([10, 40, 80], curve, np.array([0.7, 0.8, 0.6, 0.5, 0.9]))
    assert needed == pytest.approx([20, 40, 10, 0, math.inf])


def test_a_curve_that_falls_is_reached_where_it_first_gets_there() -> None:
    assert labels_needed([1, 4, 16], np.array([[0.5, 0.9, 0.7]]), np.array([0.7]))[0] == pytest.approx(2)


def test_labels_saved_are_those_of_the_shared_patients() -> None:
    """A patient whom the baseline was not tested on at each budget does not count."""
    dice = {
        ("supervised", "1 patient"): _alike(0.6),
        ("supervised", "4 patients"): _alike(0.8),
        ("tskd", "1 patient"): {**_alike(0.7), "f": 0.1},
        ("tskd", "4 patients"): _alike(0.9),
        ("tskd", "20"): _alike(0.5),
    }
    one, four = labels_saved(_arms(dice), "tskd", "supervised")
    assert (one.budget, one.patients, one.dice) == ("1 patient", 5, pytest.approx(0.7))
    assert (one.needed, one.low, one.high) == pytest.approx((2, 2, 2))
    assert four.needed == math.inf


def test_the_interval_holds_patients_apart() -> None:
    """With patients that differ in what they gain, the interval spans fewer and more labels than the mean says."""
    rng = np.random.default_rng(0)
    patients = [str(index) for index in range(40)]
    gain = rng.normal(0.1, 0.05, len(patients))
    dice = {
        ("supervised", "10"): dict(zip(patients, np.full(40, 0.6), strict=True)),
        ("supervised", "40"): dict(zip(patients, np.full(40, 0.8), strict=True)),
        ("tskd", "10"): dict(zip(patients, 0.6 + gain, strict=True)),
    }
    (saved,) = labels_saved(_arms(dice), "tskd", "supervised")
    assert saved.needed == pytest.approx(10 * 4 ** (gain.mean() / 0.2))
    spread = 1.96 * gain.std() / math.sqrt(40)
    assert saved.low == pytest.approx(10 * 4 ** ((gain.mean() - spread) / 0.2), rel=0.02)
    assert saved.high == pytest.approx(10 * 4 ** ((gain.mean() + spread) / 0.2), rel=0.02)


def test_a_baseline_with_one_budget_has_no_curve() -> None:
    assert (
        labels_saved(_arms({("supervised", "10"): _alike(0.6), ("tskd", "10"): _alike(0.7)}), "tskd", "supervised")
        == []
    )


@pytest.mark.parametrize(
    ("budget", "size"), [("20", (20, "images")), ("1 patient", (1, "patients")), ("3 patients", (3, "patients"))]
)
def test_a_budget_is_a_number_of_something(budget: str, size: tuple[float, str]) -> None:
    assert budget_size(budget) == size
    with pytest.raises(TskdError, match="expected a number of labels, found 'all'"):
        budget_size("all")


def test_a_page_gets_its_table_and_its_figure(tmp_path: Path) -> None:
    """The figure has a legend and a panel; its SVG has other colours on a dark page, and the same text each time."""
    dice = {
        (m, b): _alike(v) for m, b, v in [("supervised", "10", 0.6), ("supervised", "40", 0.8), ("tskd", "10", 0.7)]
    }
    write_rows(tmp_path / "toy.csv", _rows(dice))
    (tmp_path / "page.md").write_text(BLOCK)
    write_tables(tmp_path / "page.md")
    assert "| toy | 10 images | 5 | 0.700 | 20 | 20 to 20 | 2.0 |" in (tmp_path / "page.md").read_text()
    svg = (tmp_path / "img/toy.svg").read_text()
    ET.fromstring(svg)
    assert "prefers-color-scheme: dark" in svg
    assert all(word in svg for word in (">labels alone<", ">distilled (tskd)<", ">labelled images<"))
    assert not re.search(r"stroke: #(0072b2|e69f00)", svg)
    assert Image.open(tmp_path / "img/toy.png").size[0] > 300
    write_tables(tmp_path / "page.md")
    assert (tmp_path / "img/toy.svg").read_text() == svg


def test_what_was_tested_on_fewer_patients_is_told_apart(tmp_path: Path) -> None:
    dice = {("supervised", "10"): _alike(0.6), ("supervised", "40"): _alike(0.8), ("tskd", "10"): _alike(0.7, "ab")}
    write_rows(tmp_path / "toy.csv", _rows(dice))
    (tmp_path / "page.md").write_text(BLOCK)
    write_tables(tmp_path / "page.md")
    assert ">hollow: 2 of 5 tested<" in (tmp_path / "img/toy.svg").read_text()
    write_rows(tmp_path / "toy.csv", _rows({**dice, ("tskd", "10"): _alike(0.7)}))
    write_tables(tmp_path / "page.md")
    assert "hollow" not in (tmp_path / "img/toy.svg").read_text()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (" baseline=supervised", "label efficiency: expected baseline=... beside the CSVs"),
        ("toy.csv ", "absent.csv: expected a results CSV, found none"),
        ("methods=supervised", "expected methods among supervised; found fixmatch"),
    ],
)
def test_a_block_that_cannot_be_drawn_says_why(words: str, error: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "toy.csv", _rows({("supervised", "10"): _alike(0.6)}))
    replaced = {"toy.csv ": "absent.csv ", "methods=supervised": "methods=fixmatch"}.get(words, "")
    (tmp_path / "page.md").write_text(BLOCK.replace(words, replaced))
    with pytest.raises(TskdError, match=re.escape(error)):
        write_tables(tmp_path / "page.md")
