"""The verdict: what may be said of a difference."""

from pathlib import Path

import numpy as np
import pytest

from tskd.evaluation.report import tables
from tskd.evaluation.report.runs import Arm, Arms
from tskd.evaluation.report.summary import all_numbers, compare
from tskd.evaluation.report.verdict import About, Method, patients_table, stages_table, verdict
from tskd.evaluation.rows import MetricRow


def arms(patients: int, gain: float, noise: float, level: float = 0.7) -> Arms:
    random = np.random.default_rng(0)
    by_arm: Arms = {}
    for method, shift in (("tskd", gain), ("scratch", 0.0)):
        values = np.clip(level + shift + noise * random.standard_normal(patients), 0, 1)
        rows = [MetricRow("d", "20", method, "0", f"p{k}", f"c{k}", "liver", "dice", v) for k, v in enumerate(values)]
        by_arm[Arm("d", "20", method)] = {"0": rows}
    return by_arm


def words(**values: float) -> set[str]:
    """What the table of comparisons calls each difference."""
    chosen = arms(**values)  # type: ignore[arg-type]
    table = tables.comparison_table(compare(chosen, "tskd"), "pixels")
    return {row[table.columns.index("Which is")] for row in table.rows}


def said(about: About | None = None, **values: float) -> list[str]:
    chosen = arms(**values)  # type: ignore[arg-type]
    return verdict(all_numbers(chosen), compare(chosen, "tskd"), about)


ABOUT = About("s", {"tskd": Method("distilled", [("a", 60.0), ("b", 60.0)]), "scratch": Method("alone", [("c", 30.0)])})


def test_better_is_said_where_a_test_says_so_and_of_the_right_one() -> None:
    (line,) = said(patients=12, gain=0.1, noise=0.01)
    assert line.startswith("tskd was better than scratch: mean Dice higher by 0.")
    (line,) = said(patients=12, gain=-0.1, noise=0.01)
    assert line.startswith("scratch was better than tskd: mean Dice higher by 0.")
    assert "better" in words(patients=12, gain=-0.1, noise=0.01)


@pytest.mark.parametrize("patients", [3, 12])
def test_better_is_never_said_where_nothing_is_significant(patients: int) -> None:
    (line,) = said(ABOUT, patients=patients, gain=0.005, noise=0.05)
    assert line.startswith("No difference was shown between tskd and scratch: ")
    assert "better" not in line
    assert line.endswith("scratch is cheaper (30.0 s of training against 2 min 0 s).")
    assert ("no test can show one" in line) == (patients == 3)
    assert words(patients=patients, gain=0.005, noise=0.05) == {"no difference shown"}


def test_a_method_that_has_not_learned_is_named() -> None:
    lines = said(patients=6, gain=0.0, noise=0.0, level=0.02)
    assert [line.split(" has ")[0] for line in lines[:2]] == ["tskd (20 labels)", "scratch (20 labels)"]


def test_every_stage_has_its_time_and_unknown_is_not_zero(tmp_path: Path) -> None:
    about = About("s", {"tskd": Method("x", [("distillation", None), ("labels", 5.0)])})
    table = stages_table(about)
    assert table is not None
    assert [row[2] for row in table.rows] == ["–", "5.0 s"]
    assert about.methods["tskd"].seconds is None


def test_patients_are_listed_worst_first_and_folded() -> None:
    table = patients_table(arms(5, 0.1, 0.05))
    assert table.folded
    means = [sum(map(float, row[1:])) for row in table.rows]
    assert means == sorted(means)
