"""`tskd distil`: commands that say what they do, in the order of the method."""

import json
import shlex
from itertools import pairwise
from typing import Any

import pytest
from fire.parser import DefaultParseValue

from tests.workflow.distil_calls import call, named, paper, printed, steps
from tskd.cli import main
from tskd.data import fingerprint, write
from tskd.files import write_json
from tskd.options import check_overrides, command_line


def test_prints_three_commands_whose_keys_exist(study, capsys):
    more = ("--num-labelled", "1", "--overlay", "segresnet", "--set", "seed=3", "image_size=128")
    assert paper(study, *more, "--distil", "max_epochs=2", "--fine-tune", "layer_decay=0.7", "--dry-run") == 0
    *lines, result = capsys.readouterr().out.splitlines()
    assert lines[::2] == ["# soft labels", "# distillation", "# fine-tuning"]
    assert result == str(study / "out/tskd/models/model.pt")
    soft, distil, tune = (shlex.split(line) for line in lines[1::2])
    for command in (soft, distil, tune):
        assert command[:4] == ["python", "-m", "monai.bundle", "run"]
        check_overrides(command[4:])  # raises where a key is in none of the config files
    value = {key: after for command in (soft, distil, tune) for key, after in pairwise(command)}
    assert (value["--vfm"], value["--num_classes"]) == ("mobile_sam", "3")
    assert "segresnet.json" in distil[5]
    assert "segresnet.json" in tune[5]
    assert "distill.json" not in tune[5]
    assert tune[tune.index("--init_weights") + 1] == str(study / "out/distilled/models/model.pt")
    for command in (distil, tune):
        assert command[command.index("--seed") + 1] == "3"
        assert command[command.index("--num_labelled") + 1] == "1"
    assert ("--max_epochs" in distil, "--max_epochs" in tune) == (True, False)
    assert ("--layer_decay" in distil, "--layer_decay" in tune) == (False, True)
    assert not (study / "out").exists()


@pytest.mark.parametrize(
    ("remove", "message"),
    [("teacher/models/model.pt", "expected the output_dir of a teacher's training"), ("dataset.json", "dataset.json")],
)
def test_what_is_missing_is_named(study, remove, message, capsys):
    (study / remove).unlink()
    assert call(study, "--dry-run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(study / remove) in error


def test_an_unknown_overlay_is_named(study, capsys):
    assert call(study, "--overlay", "segresnext", "--dry-run") == 2
    assert "segresnext.json" in capsys.readouterr().err


def test_keys_that_are_given_win_over_what_the_command_would_choose(study, capsys):
    assert paper(study, "--dry-run") == 0
    soft, distil, tune = printed(capsys)
    assert not {"num_labelled", "learning_rate"} & (distil.keys() | tune.keys())
    assert (soft["image_size"], tune["num_classes"]) == ("256", "3")
    more = ["--set", "learning_rate=0.01", "--set", "seed=3", "--fine-tune", "num_labelled=0", "--num-labelled", "1"]
    more += ["--soft-label-set", "image_size=512", "--soft-label-set", "batch_size=2", "tta={'flips': [1]}"]
    assert paper(study, *more, "--dry-run") == 0
    soft, distil, tune = printed(capsys)
    assert [(one["learning_rate"], one["seed"]) for one in (distil, tune)] == [("0.01", "3")] * 2
    assert (distil["num_labelled"], tune["num_labelled"]) == ("1", "0")
    assert (soft["image_size"], soft["batch_size"], soft["tta"]) == ("512", "2", "{'flips': [1]}")
    assert not {"image_size", "tta"} & (distil.keys() | tune.keys())


def test_soft_labels_may_lie_elsewhere(study, capsys):
    assert paper(study, "--soft-labels", str(study / "soft/of another"), "--dry-run") == 0
    soft, distil, _ = printed(capsys)
    assert soft["soft_labels"] == str(study / "soft/of another")
    assert distil["soft_labels"] == str([soft["soft_labels"]])


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--set", "output_dir"),
        ("--distil", "soft_labels"),
        ("--fine-tune", "init_weights"),
        ("--soft-label-set", "model_dir"),
    ],
)
def test_paths_are_the_commands_own(study, option, key, capsys):
    assert call(study, option, f"{key}=elsewhere", "--dry-run") == 2
    assert f"expected keys that tskd distil does not set itself, found {key}. Say where" in capsys.readouterr().err


def test_a_key_without_a_value_is_refused(study, capsys):
    assert call(study, "--set", "learning_rate", "0.01", "--dry-run") == 2
    assert "expected KEY=VALUE, found 'learning_rate'" in capsys.readouterr().err


def test_the_three_steps_run_and_soft_labels_are_the_writers_matter(study, recorded):
    """It keeps what is complete and compares teacher and preprocessing: test_soft_labels.py."""
    assert paper(study) == 0
    assert paper(study, "--soft-labels", str(study / "elsewhere")) == 0
    assert steps(recorded) == ["run", "distilled", "tskd"] * 2


def test_a_step_that_fails_is_the_last_and_its_log_is_named(study, recorded, failing, capsys):
    failing.add("distilled")
    assert paper(study) == 2
    assert steps(recorded) == ["run", "distilled"]
    error = capsys.readouterr().err
    assert f"log: {study / 'out/distil.log'}" in error
    assert "it goes on from there with: the same command; --set resume=never starts anew" in error


def test_a_mistyped_key_is_named_with_those_close_to_it_before_anything_runs(study, capsys):
    assert paper(study, "--set", "learning_rat=1", "--fine-tune", "optimzer#lr=1") == 2
    error = capsys.readouterr().err
    assert "distillation: learning_rat: no such key; close names: learning_rate" in error
    assert "fine-tuning: optimzer#lr: no such key; close names: optimizer" in error
    assert not (study / "out").exists()


def test_a_teacher_of_other_data_or_more_labels_is_named(study, caplog):
    """It may have seen the patients that the student is tested on."""

    def trained(**settings: Any) -> str:
        caplog.clear()
        write_json(study / "teacher/versions.json", {"settings": {"vfm": "mobile_sam", "image_size": 256, **settings}})
        assert call(study, "--num-labelled", "1", "--dry-run") == 0
        return caplog.text

    own = fingerprint(study / "dataset.json")
    assert trained() == trained(dataset=own, num_labelled=1) == ""
    assert "the teacher was trained with dataset 123, this is " in trained(dataset="123", num_labelled=1)
    assert "the teacher was trained with num_labelled None, this is 1" in trained(dataset=own, num_labelled=None)


def test_paths_with_spaces_survive(study, recorded):
    place = study / "my study"
    study.rename(study.with_name("old"))
    study.mkdir()
    study.with_name("old").rename(place)
    (place / "more of it").mkdir()
    more = {**json.loads((place / "dataset.json").read_text()), "name": "more", "training": []}
    more["unlabelled"] = [{"image": "c.png", "group": "c", "case": "c"}]
    write(place / "more of it/dataset.json", more)
    (place / "more of it/c.png").write_bytes(b"more")
    assert paper(place, "--transfer-file", str(place / "more of it/dataset.json")) == 0
    soft, distil, tune = ({key: DefaultParseValue(value) for key, value in command_line(c).items()} for c in recorded)
    files = [str(place / "dataset.json"), str(place / "more of it/dataset.json")]
    assert soft["dataset_files"] == distil["transfer_files"] == files
    assert soft["soft_labels"] == str(place / "out/soft_labels")
    assert distil["soft_labels"] == [soft["soft_labels"]]
    assert (soft["model_dir"], distil["teacher_model"]) == (
        str(place / "teacher/models"), str(place / "teacher/models/model.pt"),
    )  # fmt: skip
    assert tune["init_weights"] == str(place / "out/distilled/models/model.pt")
    assert {one["dataset_dir"] for one in (soft, distil, tune)} == {str(place)}


def test_a_committee_answers_one_after_the_other_and_is_averaged(committee, capsys):
    others = ["--teacher", str(committee / "student"), "--teacher", str(committee / "bundle")]
    weights = [text for weight in ("2", "1", "0.5") for text in ("--teacher-weight", weight)]
    assert paper(committee, *others, *weights, "--dry-run") == 0
    commands = named(capsys)
    assert list(commands) == [
        "soft labels 1", "bundle of teacher 2", "soft labels 2", "soft labels 3", "distillation", "fine-tuning",
    ]  # fmt: skip
    made = str(committee / "out/teachers/student_2/student_segmentation")
    assert commands["bundle of teacher 2"][:2] == ["tskd.cli", "ship"]
    assert commands["bundle of teacher 2"][3:6] == [str(committee / "student"), "--output", made]
    answers = [command_line(commands[f"soft labels {number}"][2:]) for number in (1, 2, 3)]
    assert [one.get("teacher_bundle") for one in answers] == [None, made, str(committee / "bundle")]
    assert [one["image_size"] for one in answers] == ["256", "128", "64"]
    folders = [str(committee / f"out/soft_labels/{number}") for number in (1, 2, 3)]
    assert [one["soft_labels"] for one in answers] == folders
    for one in answers:
        check_overrides(["monai.bundle", "run", *(f"--{key}={value}" for key, value in one.items())])
    distil = command_line(commands["distillation"][2:])
    assert (distil["soft_labels"], distil["teacher_weights"]) == (
        str([[folder] for folder in folders]), "[2.0, 1.0, 0.5]",
    )  # fmt: skip
    assert "teacher_model" not in distil
    assert "loss#terms#embedding#weight" not in distil  # the first teacher has an embedding


def test_a_student_can_be_the_teacher(committee, capsys):
    """Self-training, and a second round; without an embedding there is no term for it."""
    places = ["--dataset-dir", str(committee), "--output", str(committee / "out"), "--order", "paper"]
    assert main(["distil", *places, "--teacher", str(committee / "student"), "--dry-run"]) == 0
    commands = named(capsys)
    assert list(commands) == ["bundle of teacher", "soft labels", "distillation", "fine-tuning"]
    distil = command_line(commands["distillation"][2:])
    assert distil["loss#terms#embedding#weight"] == "0.0"
    made = committee / "out/teachers/student/student_segmentation"
    assert distil["teacher_model"] == str(made / "models/model.pt")
    (made / "models").mkdir(parents=True)
    (made / "models/model.pt").write_bytes(b"student")  # its bundle, from an earlier call
    assert main(["distil", *places, "--teacher", str(committee / "student"), "--dry-run"]) == 0
    assert "bundle of teacher" not in named(capsys)
    (made / "models/model.pt").write_bytes(b"of another training")
    assert main(["distil", *places, "--teacher", str(committee / "student"), "--dry-run"]) == 2
    assert "expected the bundle of" in capsys.readouterr().err


@pytest.mark.parametrize("weights", [["1"], ["1", "0"], ["1", "2", "3"]])
def test_a_weight_for_each_teacher(committee, capsys, weights):
    options = [text for weight in weights for text in ("--teacher-weight", weight)]
    assert call(committee, "--teacher", str(committee / "student"), *options, "--dry-run") == 2
    assert "--teacher-weight: expected a number above 0 for each of the 2 teachers" in capsys.readouterr().err


def test_a_bundle_without_an_image_size_is_asked_for_it(committee, capsys):
    write_json(committee / "bundle/configs/inference.json", {"network_def": {"_target_": "UNet"}})
    places = [
        "--dataset-dir",
        str(committee),
        "--output",
        str(committee / "out"),
        "--teacher",
        str(committee / "bundle"),
    ]
    assert main(["distil", *places, "--dry-run"]) == 2
    assert "--soft-label-set image_size=N" in capsys.readouterr().err
    assert main(["distil", *places, "--soft-label-set", "image_size=96", "--dry-run"]) == 0
