"""Every number of the report equals a plain computation from the rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tskd.errors import TskdError
from tskd.evaluation.report.runs import Arm, Arms, collect, load_run
from tskd.evaluation.report.summary import all_numbers, choose_reference, compare, notes_of_tests
from tskd.evaluation.rows import MetricRow

METHODS = ("scratch", "teacher", "student")
ORGANS = ("liver", "spleen")
Writer = Callable[..., Path]


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory, write_run: Writer) -> Arms:
    root = tmp_path_factory.mktemp("runs")
    runs = [write_run(root / f"{m}_{b}_{s}", m, b, s) for m in METHODS for b in (100, 80) for s in (0, 1)]
    return collect(load_run(run) for run in runs)


def values(arms: Arms, arm: Arm, metric: str, label: str | None) -> np.ndarray:
    """Seeds x patients, straight from the rows (each patient has both organs and two cases)."""
    table = np.zeros((2, 7))
    for row in (row for rows in arms[arm].values() for row in rows):
        if row.metric == metric and label in (None, row.label):
            table[int(row.seed), int(row.group) - 1] += row.value / (2 if label else 4)
    return table


def test_arms_are_ordered_by_budget(arms: Arms) -> None:
    assert [(arm.budget, arm.method) for arm in arms] == [(b, m) for b in ("80", "100") for m in METHODS]


def test_numbers_equal_the_rows(arms: Arms) -> None:
    numbers = all_numbers(arms)
    assert len(numbers) == 6 * 3 * 3
    for number in numbers:
        arm = Arm(number.dataset, number.budget, number.method)
        label = number.label if number.label in ORGANS else None
        table = values(arms, arm, number.metric, label)
        patients = table.mean(axis=0)
        assert (number.seeds, number.patients) == (2, 7)
        assert number.mean == pytest.approx(table.mean())
        assert number.median == pytest.approx(np.median(patients))
        worst = {"dice": patients.min(), "hd95": patients.max()}.get(number.metric)
        worst = patients[np.abs(patients).argmax()] if worst is None else worst
        assert number.worst == pytest.approx(worst) == pytest.approx(patients[int(number.worst_patient) - 1])
        assert number.low is not None
        assert number.high is not None
        assert number.low <= number.mean <= number.high


def test_comparisons_equal_scipy_and_holm(arms: Arms) -> None:
    comparisons = [item for item in compare(arms, "scratch") if item.metric == "dice"]
    assert [(item.arm.budget, item.arm.method) for item in comparisons] == [
        (b, m) for b in ("80", "100") for m in ("teacher", "student")
    ]
    for item in comparisons:
        arm_values = values(arms, item.arm, "dice", None).mean(axis=0)
        reference_values = values(arms, item.arm._replace(method="scratch"), "dice", None).mean(axis=0)
        assert item.test.p == pytest.approx(stats.wilcoxon(arm_values, reference_values, method="exact").pvalue)
        assert item.test.difference.mean == pytest.approx((arm_values - reference_values).mean())
        assert item.p_holm == pytest.approx(min(1, 4 * item.test.smallest_p))  # all four are as small as can be
        assert "after correction for 4 comparisons" in item.test.note


def test_a_note_of_one_comparison_names_its_method(arms: Arms) -> None:
    """Otherwise it is read as one on all: the student was tested on five of the others' seven patients."""
    few = {
        arm: {
            seed: [row for row in rows if arm.method != "student" or int(row.group) <= 5] for seed, rows in of.items()
        }
        for arm, of in arms.items()
        if arm.budget == "80"
    }
    pairs = [item for item in compare(few, "scratch") if item.metric == "dice"]
    student = "only the 5 shared patients count; too few patients: no result could reach p < 0.05 after correction for"
    assert notes_of_tests(pairs) == {f"{student} 2 comparisons": "student"}
    assert list(notes_of_tests(compare(arms, "scratch")).values()) == [""]


def test_reference(arms: Arms) -> None:
    assert choose_reference(arms, None) == "scratch"
    assert choose_reference(arms, "teacher") == "teacher"
    assert choose_reference({arm: rows for arm, rows in arms.items() if arm.method == "student"}, None) is None
    with pytest.raises(TskdError, match="scratch, teacher, student; found 'techer'"):
        choose_reference(arms, "techer")


def test_an_organ_that_only_one_seed_has_is_noted() -> None:
    arm = Arm("set", "1", "net")
    seeds = {
        seed: [
            MetricRow(*arm, seed, str(p), str(p), organ, "dice", 0.1 * p) for p in (1, 2, 3) for organ in seed_organs
        ]
        for seed, seed_organs in {"0": ("liver",), "1": ("liver", "spleen")}.items()
    }
    spleen = next(number for number in all_numbers({arm: seeds}) if number.label == "spleen")
    assert spleen.seeds == 1
    assert "only 1 of 2 seeds" in spleen.note


def test_the_same_result_twice_is_refused(tmp_path: Path, write_run: Writer) -> None:
    runs = [load_run(write_run(tmp_path / name, "student")) for name in ("a", "b")]
    with pytest.raises(TskdError, match="both hold case"):
        collect(runs)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("cases.json", "{", "cases.json: expected JSON"),
        ("summary.json", "[1]", "expected a JSON object, found list"),
        ("train/train_log.csv", "epoch,step\n", "missing"),
        ("train/train_log.csv", "epoch,step,name,value\n1,x,loss,2\n", "line 2"),
    ],
)
def test_unreadable_files_are_named(file: str, text: str, words: str, tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path / "run", "student", patients=1)
    (run / file).write_text(text)
    with pytest.raises(TskdError) as error:
        load_run(run)
    assert words in str(error.value)
    assert file in str(error.value)


def test_a_folder_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TskdError, match=r"metrics\.csv"):
        load_run(tmp_path)
