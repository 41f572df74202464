"""Joint training, committees and students as teachers in a study, and data and teachers that are there already."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.test_study import TOY, value
from tskd.data import write
from tskd.errors import TskdError
from tskd.files import write_json
from tskd.workflow import check_study, read_yaml
from tskd.workflow.chain import shortened
from tskd.workflow.costs import study_key

AT = "results/phantom/split"


def joint(**teachers: Any) -> dict[str, Any]:
    """The toy study with a student of the labels, from which joint training starts."""
    config = read_yaml(TOY)
    config["teachers"] |= teachers
    steps = config["pretraining"]["distilled"]["overrides"]
    config["pretraining"]["joint"] = {
        "teacher": ["small", *teachers], "start": "scratch", "transfer": {"real": True},
        "configs": ["distill", "joint"], "overrides": {**steps, "batch_size": 4},
    }  # fmt: skip
    config["methods"]["scratch"] = {"finetune": {"overrides": steps}}
    config["methods"]["joint"] = {"pretrain": "joint"}
    return config


def test_joint_training_starts_from_the_student_of_the_labels() -> None:
    steps = check_study(joint(), "joint").steps
    step = steps[f"{AT}/distil/joint/budget-4/seed-1/models/model.pt"]
    start = steps[f"{AT}/finetune/scratch/budget-4/seed-1/models/model.pt"]
    assert start in step.needs
    assert value(step.command, "init_weights") == start.output
    assert value(step.command, "num_labelled") == "4"
    assert f"{AT}/distil/joint/budget-4/seed-1/metrics.csv" in steps  # it is evaluated without a fine-tuning


def test_the_start_may_be_a_training_of_its_own() -> None:
    config = joint()
    config["pretraining"]["joint"]["start"] = {"overrides": {"max_epochs": 3}}
    steps = check_study(config, "start").steps
    step = steps[f"{AT}/distil/joint/budget-4/seed-1/models/model.pt"]
    start = steps[f"{AT}/finetune/joint_start/budget-4/seed-1/models/model.pt"]
    assert value(step.command, "init_weights") == start.output
    assert value(start.command, "max_epochs") == "3"
    assert f"{AT}/finetune/joint_start/budget-4/seed-1/metrics.csv" not in steps  # it is no method of its own
    assert shortened(config)["pretraining"]["joint"]["start"]["overrides"]["max_epochs"] == 1
    config["methods"]["joint_start"] = {"finetune": {}}
    with pytest.raises(TskdError, match="methods/joint_start: expected another name"):
        check_study(config, "start")


def test_students_teach_beside_the_foundation_model() -> None:
    config = joint(student={"method": "scratch"})
    config["pretraining"]["joint"]["teacher_weights"] = [1, 2]
    config["overrides"]["student"]["image_size"] = 96
    steps = check_study(config, "committee").steps
    learned = steps[f"{AT}/distil/joint/budget-4/seed-0/models/model.pt"].command
    answers = [f"{AT}/soft_labels/real/{name}/budget-4/seed-0" for name in ("small", "student")]
    assert value(learned, "soft_labels") == str([[answers[0]], [answers[1]]])
    assert value(learned, "teacher_weights") == "[1, 2]"
    assert "--teacher_model" not in learned
    bundle = f"{AT}/teachers/student/budget-4/seed-0/student_segmentation"
    student = f"{AT}/finetune/scratch/budget-4/seed-0"
    made, writes = steps[f"{bundle}/models/model.pt"], steps[f"{answers[1]}/manifest.json"]
    assert made.command[:6] == ("tskd.cli", "ship", "--run", student, "--output", bundle)
    assert steps[f"{student}/models/model.pt"] in made.needs
    assert made in writes.needs
    assert value(writes.command, "teacher_bundle") == bundle
    assert value(writes.command, "image_size") == "96"  # the student's
    assert "--vfm" not in writes.command
    assert value(steps[f"{answers[0]}/manifest.json"].command, "image_size") == "64"


def test_a_student_alone_as_the_teacher_has_no_embedding_to_compare_with() -> None:
    config = joint(student={"method": "scratch"})
    config["pretraining"]["joint"]["teacher"] = "student"
    learned = check_study(config, "self").steps[f"{AT}/distil/joint/budget-4/seed-0/models/model.pt"].command
    assert value(learned, "loss#terms#embedding#weight") == "0.0"
    assert (
        value(learned, "teacher_model") == f"{AT}/teachers/student/budget-4/seed-0/student_segmentation/models/model.pt"
    )


def test_data_and_teachers_that_are_there_are_taken_as_they_are(tmp_path: Path) -> None:
    entry = {"image": "a.png", "group": "a", "case": "a"}
    write(tmp_path / "dataset.json", {
        "name": "toy", "modality": "MR", "channels": 1, "labels": {"0": "background", "1": "liver"}, "provenance": {},
        "training": [{**entry, "label": "a.png"}], "unlabelled": [], "validation": [], "test": [],
    })  # fmt: skip
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / "run/models").mkdir(parents=True)
    (tmp_path / "run/models/model.pt").write_bytes(b"weights")
    keys = {"network_def#high_res_features": True}
    write_json(
        tmp_path / "run/versions.json", {"settings": {"vfm": "sam_vit_b", "image_size": 256}, "network_keys": keys}
    )
    config = joint()
    config["datasets"]["phantom"] = {
        "dataset_dir": str(tmp_path), "num_classes": 2, "in_channels": 1, "num_labelled_groups": [1]
    }  # fmt: skip
    config["teachers"]["small"] = {"run": str(tmp_path / "run")}
    del config["methods"]["teacher"]
    steps = check_study(config, "given").steps
    assert not [step for step in steps.values() if step.rule in ("prepare", "teacher")]
    answers = steps[f"{AT}/soft_labels/real/small/budget-1-patient/seed-0/manifest.json"].command
    assert value(answers, "model_dir") == str(tmp_path / "run/models")
    assert (value(answers, "vfm"), value(answers, "image_size")) == ("sam_vit_b", "256")
    assert value(answers, "network_def#high_res_features") == "True"
    assert "--tta" not in answers  # a run that does not say how it was mirrored: as the data set's preset does
    made_with = {"settings": {"vfm": "sam_vit_b", "image_size": 256}}
    for mirrored, expected in (([0], "{'flips': [0]}"), ([], "$None")):
        write_json(tmp_path / "run/versions.json", {**made_with, "mirrored": mirrored})
        again = check_study(config, "given").steps[f"{AT}/soft_labels/real/small/budget-1-patient/seed-0/manifest.json"]
        assert value(again.command, "tta") == expected
    assert value(answers, "dataset_files") == str([str(tmp_path / "dataset.json")])
    assert value(answers, "dataset_dir") == str(tmp_path)
    config["folds"] = {"of": 3}
    with pytest.raises(TskdError, match="expected prepare, which makes the folds, found dataset_dir"):
        check_study(config, "given")


def test_what_does_not_fit_is_refused_at_once() -> None:
    config = joint(student={"method": "scrach"}, gone={"run": "nowhere"}, both={"run": "nowhere", "train": {}})
    config["pretraining"]["joint"] |= {"start": "teacher", "teacher_weights": [1]}
    with pytest.raises(TskdError) as raised:
        check_study(config, "wrong")
    for line in (
        "teachers/student/method: expected one of teacher, tskd, scratch, joint; found scrach (did you mean scratch?)",
        "teachers/gone/run: ",
        "teachers/both: expected one of method, run, train, found run and train",
        "pretraining/joint/start: expected a method with finetune, found teacher",
        "pretraining/joint/teacher_weights: expected a number for each of the 4 teachers, found [1]",
    ):
        assert line in str(raised.value)


def test_a_student_cannot_be_its_own_teacher() -> None:
    config = joint(student={"method": "joint"})
    with pytest.raises(TskdError, match="methods/joint: expected a student that others teach, found one"):
        check_study(config, "circle")


def test_the_report_says_what_a_method_is() -> None:
    config = joint(student={"method": "scratch"})
    study = check_study(config, "about")
    about = json.loads(study.report("phantom").command[1])["methods"]
    assert about["joint"]["what"] == "student, trained on the labels, then distilled from small and student"


def test_in_rounds_the_student_of_each_teaches_the_next_and_is_evaluated() -> None:
    config = joint(student={"method": "scratch"})
    config["pretraining"]["joint"] |= {
        "rounds": 3,
        "teacher_weights": [1, 2],
        "start": {"overrides": {"max_epochs": 3}},
    }
    steps = check_study(config, "rounds").steps
    runs = [f"{AT}/distil/{name}/budget-4/seed-0" for name in ("joint_round_1", "joint_round_2", "joint")]
    learned = [steps[f"{run}/models/model.pt"].command for run in runs]
    answers = [f"{AT}/soft_labels/real/joint_round_{number}/budget-4/seed-0" for number in (1, 2)]
    assert value(learned[0], "teacher_weights") == "[1, 2]"
    assert [value(command, "soft_labels") for command in learned[1:]] == [str([folder]) for folder in answers]
    start = f"{AT}/finetune/joint_start/budget-4/seed-0/models/model.pt"
    assert {value(command, "init_weights") for command in learned} == {start}
    for number, run in enumerate(runs[:2], start=1):
        bundle = steps[f"{AT}/teachers/joint_round_{number}/budget-4/seed-0/student_segmentation/models/model.pt"]
        assert value(bundle.command, "run") == run
        assert f"{run}/metrics.csv" in steps
    assert study_key(check_study(config, "rounds"), steps[f"{runs[0]}/models/model.pt"]) == "pretraining/joint"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda config: config["methods"].update(joint_round_1={"finetune": {}}),
            "joint_round_1: expected another name",
        ),
        (lambda config: config["pretraining"]["joint"].pop("teacher"), "expected the key teacher beside rounds"),
        (lambda config: config["pretraining"]["joint"].update(rounds=0), "rounds: expected at least 1, found 0"),
    ],
)
def test_rounds_that_cannot_be_are_named(change: Any, problem: str) -> None:
    config = joint()
    config["pretraining"]["joint"]["rounds"] = 2
    change(config)
    with pytest.raises(TskdError, match=problem):
        check_study(config, "rounds")
