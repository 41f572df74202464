"""The student that is shipped is the best on validation; a line says what distillation has brought there."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.test_joint_study import joint
from tskd.workflow import Study, check_study
from tskd.workflow.choose_student import choose_student

HEAD = "epoch,step,name,value\n"


def study_of(folder: Path, dice: dict[str, list[tuple[float, ...]]], config: dict[str, Any] | None = None) -> Study:
    """A study whose methods have these values of validation Dice, of each seed one an epoch."""
    study = check_study({**(config or joint()), "output": str(folder)}, "choice")
    for method, seeds in dice.items():
        for cell, values in zip(study.cells("phantom"), seeds, strict=True):
            run = Path(str(study.model(cell, method).folder))
            run.mkdir(parents=True)
            rows = [f"{epoch},{epoch},validation_val_mean_dice,{value}" for epoch, value in enumerate(values, 1)]
            (run / "train_log.csv").write_text(HEAD + "\n".join(rows) + "\n")
    return study


TEACHER: list[tuple[float, ...]] = [(0.6,), (0.7,)]
TSKD: list[tuple[float, ...]] = [(0.5,), (0.5,)]


@pytest.mark.parametrize(
    ("scratch", "learned", "run", "words"),
    [
        ([(0.80,), (0.80,)], [(0.83,), (0.85,)], "distil/joint/budget-4/seed-1", "Distillation has helped (+0.040)"),
        ([(0.80,), (0.82,)], [(0.90,), (0.60,)], "finetune/scratch/budget-4/seed-1", "Distillation has hurt (-0.060)"),
        (
            [(0.90, 0.80), (0.80,)],
            [(0.805,), (0.80,)],
            "distil/joint/budget-4/seed-0",
            "no difference beyond chance (+0.002)",
        ),
    ],
    ids=["ahead", "behind", "the last epoch counts"],
)
def test_the_best_on_validation_is_shipped(
    tmp_path: Path, scratch: list[tuple[float, ...]], learned: list[tuple[float, ...]], run: str, words: str
) -> None:
    study = study_of(tmp_path, {"teacher": TEACHER, "tskd": TSKD, "scratch": scratch, "joint": learned})
    step, line = choose_student(study, "phantom")
    assert step is not None
    assert step.folder == f"{tmp_path}/phantom/split/{run}"
    assert words in line
    assert line.startswith("validation Dice: teacher 0.650, ")
    assert line.endswith(f"is shipped: {run.split('/')[1]}")


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        (("agreement", "agreement"), ""),
        ((1.0, 1.0), "The teacher of joint was far behind, and its soft labels were not asked"),
        (
            ("agreement", 1.0),
            "The teacher of joint was far behind with 1 of 2 seeds, and its soft",
        ),
    ],
)
def test_a_teacher_that_was_left_out_is_said(tmp_path: Path, ratios: tuple[float | str, ...], words: str) -> None:
    learned: list[tuple[float, ...]] = [(0.83,), (0.85,)]
    study = study_of(tmp_path, {"teacher": TEACHER, "tskd": TSKD, "scratch": [(0.8,)] * 2, "joint": learned})
    for cell, ratio in zip(study.cells("phantom"), ratios, strict=True):
        record = {"settings": {"pseudo_ratio": "agreement", "ratio": ratio}}
        (Path(str(study.model(cell, "joint").folder)) / "versions.json").write_text(json.dumps(record))
    line = choose_student(study, "phantom")[1]
    assert words in line
    assert ("was far behind" in line) == bool(words)


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        (
            1,
            ". Distillation: +0.040 on one validation patient, too few to tell",
        ),
        (
            4,
            ". Distillation: +0.040 on 4 validation patients, too few to tell",
        ),
        (5, ". Distillation has helped (+0.040)"),
    ],
)
def test_with_few_validation_patients_nothing_is_claimed(tmp_path: Path, patients: int, words: str) -> None:
    learned: list[tuple[float, ...]] = [(0.83,), (0.85,)]
    study = study_of(tmp_path, {"teacher": TEACHER, "tskd": TSKD, "scratch": [(0.8,)] * 2, "joint": learned})
    for cell in study.cells("phantom"):
        entries = [{"image": f"{n}.nii.gz", "label": f"{n}_l.nii.gz", "group": f"P{n // 2}", "case": str(n)}
                   for n in range(2 * patients)]  # fmt: skip
        header = {"name": "a", "modality": "MR", "channels": 1, "labels": {"0": "background", "1": "liver"}}
        lists = {"training": [], "unlabelled": [], "validation": entries, "test": []}
        file = Path(study.prepare(cell).output)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**header, **lists}))
    step, line = choose_student(study, "phantom")
    assert step is not None
    assert step.folder == f"{tmp_path}/phantom/split/distil/joint/budget-4/seed-1"
    assert line.endswith(f"{words}. The best student there is shipped: joint")


def test_equal_students_leave_it_to_the_reference_of_the_report(tmp_path: Path) -> None:
    study = study_of(tmp_path, {name: [(0.8,), (0.8,)] for name in ("teacher", "tskd", "scratch", "joint")})
    step, _ = choose_student(study, "phantom")
    assert step is not None
    assert "/finetune/tskd/" in str(step.folder)


def test_without_numbers_it_is_the_reference_of_the_report(tmp_path: Path) -> None:
    step, line = choose_student(study_of(tmp_path, {"scratch": [(0.8,), (0.8,)]}), "phantom")
    assert step is not None
    assert "/finetune/tskd/" in str(step.folder)
    assert line == "validation Dice: unknown of joint, tskd. Shipped: tskd"


def test_distillation_is_compared_with_the_longest_training_on_labels_alone(tmp_path: Path) -> None:
    """A training on the labels that goes on counts as one; students that only students teach are no distillation."""
    config = joint(student={"method": "scratch"})
    config["pretraining"]["joint"]["teacher"] = "small"
    config["pretraining"]["longer"] = {"start": "scratch", "configs": [], "overrides": {}}
    config["pretraining"]["self"] = {**config["pretraining"]["joint"], "teacher": "student"}
    config["methods"] |= {"longer": {"pretrain": "longer"}, "self": {"pretrain": "self"}}
    values = {"teacher": 0.6, "tskd": 0.5, "scratch": 0.7, "joint": 0.75, "longer": 0.8, "self": 0.9}
    study = study_of(tmp_path, {name: [(value,), (value,)] for name, value in values.items()}, config)
    _, line = choose_student(study, "phantom")
    assert "Distillation has hurt (-0.050)" in line
