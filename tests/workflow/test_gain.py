"""What distillation brings, told by validation: before, after, and which student is the result."""

import re
from pathlib import Path

import pytest

from tskd.files import write_json
from tskd.train_log import trained_steps, validation_dice
from tskd.workflow.gain import better, better_round, expectation, unequal


def run(folder: Path, *dice: float, length: int = 1) -> Path:
    """A run whose log has these validations, of epochs of `length` steps from 0 on."""
    folder.mkdir()
    rows = [
        f"{epoch},{epoch * length},loss,0.1\n{epoch},{epoch * length},validation_val_mean_dice,{value}"
        for epoch, value in enumerate(dice)
    ]
    (folder / "train_log.csv").write_text("epoch,step,name,value\n" + "\n".join(rows) + "\n")
    return folder


def test_the_dice_is_that_of_the_model_that_is_written(tmp_path):
    assert validation_dice(run(tmp_path / "a", 0.5, 0.8, 0.7)) == 0.7
    assert validation_dice(tmp_path / "a", best=True) == 0.8
    assert validation_dice(run(tmp_path / "b")) is None
    assert validation_dice(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("teachers", "words"),
    [
        ((0.7, 0.9), "is ahead"),
        ((0.7, 0.805), "is not ahead: such a one has brought"),
        ((0.6, 0.71), "is not ahead: such a one has brought"),
        ((0.5, 0.69), "is far behind, and its soft labels would mislead"),
    ],
)
def test_what_can_be_expected_follows_the_best_teacher(tmp_path, teachers, words):
    runs = [run(tmp_path / str(index), dice) for index, dice in enumerate(teachers)]
    line = expectation([*runs, tmp_path / "bundle"], run(tmp_path / "supervised", 0.8))
    assert words in line
    assert f"teacher {teachers[0]:.3f}, {teachers[1]:.3f}, student of the labels 0.800" in line
    assert ("--distil pseudo_ratio=1" in line) == (max(teachers) < 0.7)
    assert "It is not asked" not in line  # a committee is
    assert "Nothing is known of the teacher bundle. To measure it: tskd evaluate --run" in line


@pytest.mark.parametrize(
    ("pseudo_ratio", "words"),
    [
        ("agreement", "It is not asked (pseudo_ratio)"),
        ("0.3", "--distil pseudo_ratio=1"),
        (None, "longer or larger."),
        ("1", "longer or larger."),
    ],
)
def test_of_one_that_is_far_behind_it_is_said_whether_it_is_asked(tmp_path, pseudo_ratio, words):
    line = expectation([run(tmp_path / "sam", 0.6)], run(tmp_path / "student", 0.8), pseudo_ratio=pseudo_ratio)
    assert line.endswith(words) if words.startswith("longer") else words in line
    assert ("is not asked" in line) == (pseudo_ratio == "agreement")


def bundle(folder: Path, **metadata: object) -> Path:
    """A bundle with this metadata.json."""
    write_json(folder / "configs/metadata.json", metadata)
    return folder


def test_a_bundle_is_known_by_its_record(tmp_path):
    supervised = run(tmp_path / "supervised", 0.8)
    shipped = bundle(tmp_path / "unet", eval_metrics={"mean_dice": 0.9123})
    line = expectation([shipped], supervised)
    assert "teacher 0.912 (unet, by its metadata.json and on the images of its evaluation), student" in line
    assert "The teacher is ahead" in line
    assert "Nothing is known" not in line
    assert "The teacher is not ahead" in expectation(
        [bundle(tmp_path / "b", eval_metrics={"mean_dice": 0.75})], supervised
    )
    behind = expectation([bundle(tmp_path / "far", eval_metrics={"mean_dice": 0.5})], supervised)
    assert "is far behind" in behind
    assert "--distil pseudo_ratio=1" in behind  # its training's log is not there: it is asked
    both = expectation([run(tmp_path / "sam", 0.85), shipped], supervised)
    assert "teacher 0.850, 0.912 (unet, by" in both


@pytest.mark.parametrize("metadata", [{}, {"eval_metrics": {}}, {"eval_metrics": {"mean_dice": "high"}}])
def test_of_a_bundle_that_nothing_is_known_of_it_is_said_how_to_measure_it(tmp_path, metadata):
    line = expectation([bundle(tmp_path / "unet", **metadata)], run(tmp_path / "supervised", 0.8))
    assert line.startswith("validation Dice: student of the labels 0.800. Nothing is known of the teacher unet. ")
    assert f"tskd predict {tmp_path / 'unet'} IMAGES --output MASKS" in line
    assert "tskd score DATASET.json --predictions MASKS --section validation" in line
    assert "\n" not in line


def test_without_a_validation_of_the_student_nothing_is_expected(tmp_path):
    line = expectation([run(tmp_path / "sam", 0.85)], tmp_path / "supervised")
    assert line == "validation Dice: unknown of supervised, so nothing says what to expect of the teacher."


@pytest.mark.parametrize(
    ("after", "result", "words"),
    [(0.85, "tskd", r"\+0\.050\)\.$"), (0.805, "tskd", "within chance"), (0.79, "supervised", "brought nothing")],
)
def test_a_student_that_is_worse_on_validation_is_not_the_result(tmp_path, after, result, words):
    chosen, line = better(run(tmp_path / "supervised", 0.8), run(tmp_path / "tskd", after))
    assert chosen == tmp_path / result
    assert re.search(words, line)


@pytest.mark.parametrize(
    ("after", "patients", "result", "words"),
    [
        (0.816, 1, "tskd", "(+0.016). That is on one validation patient, too few to tell."),
        (0.816, 4, "tskd", "(+0.016). That is on 4 validation patients, too few to tell."),
        (0.816, 5, "tskd", "(+0.016)."),
        (0.79, 1, "supervised", "patient, too few to tell: the student of the labels is the result."),
        (0.79, 5, "supervised", "(-0.010). Distillation has brought nothing: the student of the labels is the result."),
    ],
)
def test_few_validation_patients_show_nothing_and_choose_all_the_same(tmp_path, after, patients, result, words):
    chosen, line = better(run(tmp_path / "supervised", 0.8), run(tmp_path / "tskd", after), patients=patients)
    assert chosen == tmp_path / result
    assert line.endswith(words)


@pytest.mark.parametrize(
    ("longer", "after", "result", "words"),
    [
        (0.82, 0.87, "tskd", "0.820 in 4,000 steps, 0.870 with soft labels in 5,000 steps (+0.050 on the better one)."),
        (0.82, 0.825, "tskd", "(+0.005 on the better one). That is within chance."),
        (0.84, 0.83, "longer", "nothing: the student of the labels, trained for longer, is the result."),
        (0.78, 0.79, "supervised", "(-0.010 on the better one). Distillation has brought nothing: the student of the"),
    ],
)
def test_a_longer_training_on_the_labels_is_compared_with(tmp_path, longer, after, result, words):
    supervised = run(tmp_path / "supervised", 0.5, 0.8, length=2000)
    runs = run(tmp_path / "tskd", 0.8, after, length=3000), run(tmp_path / "longer", 0.8, longer, length=2000)
    chosen, line = better(supervised, runs[0], longer=runs[1])
    assert chosen == tmp_path / result
    assert words in line
    assert line.startswith("validation Dice: 0.800 by the labels alone, ")
    assert "No fair comparison" not in line
    assert better(supervised, tmp_path / "tskd", longer=tmp_path / "none")[0] == tmp_path / "tskd"


@pytest.mark.parametrize("after", [0.85, 0.805, 0.79])
def test_a_comparison_of_unequal_lengths_is_called_so(tmp_path, after):
    supervised = run(tmp_path / "supervised", 0.5, 0.8, length=2000)
    student = run(tmp_path / "tskd", 0.8, after, length=3000)
    assert trained_steps(student) == 3000
    line = better(supervised, student)[1]
    assert line.endswith(
        " No fair comparison: the labels alone were trained for 2,000 steps, the other student for 5,000 steps. "
        "--baseline trains the labels alone for as long."
    )
    assert better_round(supervised, student, 2, remark=unequal(supervised, student))[1].endswith(" for as long.")


def test_without_numbers_the_distilled_student_is_the_result(tmp_path):
    chosen, line = better(tmp_path / "supervised", tmp_path / "tskd")
    assert chosen == tmp_path / "tskd"
    assert "unknown" in line


@pytest.mark.parametrize(
    ("dice", "result", "line"),
    [(0.82, "second", "round 2: validation Dice 0.820 (+0.020)."),
     (0.75, "first", "round 2: validation Dice 0.750 (-0.050). first is the result.")],
)  # fmt: skip
def test_a_further_round_that_is_worse_on_validation_is_not_the_result(tmp_path, dice, result, line):
    first, second = run(tmp_path / "first", 0.8), run(tmp_path / "second", dice)
    assert better_round(first, second, 2) == (tmp_path / result, line)
