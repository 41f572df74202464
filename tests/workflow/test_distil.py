"""`tskd distil`: commands that say what they do, in the order of the method."""

import ast
import json
import shlex
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fire.parser import DefaultParseValue

from tskd.cli import main
from tskd.data import fingerprint, write
from tskd.errors import TskdError
from tskd.files import write_json
from tskd.options import check_overrides, command_line
from tskd.workflow.commands import STUDENT, config_files, merged_config


@pytest.fixture
def study(tmp_path: Path) -> Path:
    data = {
        "name": "study", "modality": "MR", "channels": 1, "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "training": [{"image": "a.png", "label": "b.png", "group": "1", "case": "a"}], "validation": [], "test": [],
    }  # fmt: skip
    write(tmp_path / "dataset.json", data)
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / "teacher" / "models").mkdir(parents=True)
    (tmp_path / "teacher/models/model.pt").write_bytes(b"weights")
    (tmp_path / "teacher/versions.json").write_text(json.dumps({"settings": {"vfm": "mobile_sam", "image_size": 256}}))
    return tmp_path


def paper(study: Path, *more: str) -> int:
    return call(study, "--order", "paper", *more)


def call(study: Path, *more: str) -> int:
    places = ["--dataset-dir", str(study), "--teacher", str(study / "teacher"), "--output", str(study / "out")]
    return main(["distil", *places, *more])


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


def printed(capsys) -> list[dict[str, Any]]:
    """Options of the commands that a dry run has printed: soft labels, distillation, fine-tuning."""
    *lines, _ = capsys.readouterr().out.splitlines()
    return [command_line(shlex.split(line)[4:]) for line in lines[1::2]]


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


@pytest.fixture
def failing() -> set[str]:
    """Last part of the `output_dir` of steps that are to fail."""
    return set()


@pytest.fixture
def recorded(monkeypatch, failing) -> list[list[str]]:
    """The commands that would have been run."""
    commands: list[list[str]] = []

    def follow(command: list[str], *_: Any) -> int:
        commands.append(command[command.index("--") + 1 :])
        return int(steps(commands[-1:])[0] in failing)

    monkeypatch.setattr("tskd.workflow.distil.follow_command", follow)
    monkeypatch.setattr("tskd.workflow.warm.server", lambda *_: nullcontext({}))
    monkeypatch.setattr("tskd.workflow.distil.get_weights", lambda _: None)
    return commands


def steps(commands: list[list[str]]) -> list[str]:
    return [command_line(command)["output_dir"].rpartition("/")[2] for command in commands]


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


@pytest.fixture
def committee(study: Path) -> Path:
    """The study with a student's run and a MONAI bundle beside the foundation model's run."""
    for name in ("student", "bundle"):
        (study / name / "models").mkdir(parents=True)
        (study / name / "models/model.pt").write_bytes(name.encode())
    settings = {"image_size": 128, "num_labelled": None}
    write_json(study / "student/versions.json", {"settings": settings, "config": ["train.json", "lite_unet.json"]})
    (study / "bundle/configs").mkdir()
    write_json(study / "bundle/configs/inference.json", {"image_size": 64, "network_def": {"_target_": "UNet"}})
    return study


def named(capsys) -> dict[str, list[str]]:
    """Name and command of each step that a dry run has printed."""
    *lines, _ = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line)[2:] for line in lines[1::2]]
    return dict(zip([line.removeprefix("# ") for line in lines[::2]], commands, strict=True))


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


def config_names(arguments):
    return [Path(name).name for name in ast.literal_eval(arguments["config_file"])]


def test_joint_training_starts_from_the_student_of_the_labels(study, capsys):
    more = ("--overlay", "lite_unet", "--num-labelled", "1", "--distil", "max_epochs=2")
    assert call(study, *more, "--fine-tune", "max_epochs=1", "--dry-run") == 0
    commands = named(capsys)
    assert list(commands) == ["soft labels", "training on the labels", "joint training"]
    first, joint = (command_line(commands[name][2:]) for name in list(commands)[1:])
    assert joint["init_weights"] == str(study / "out/supervised/models/model.pt")
    assert joint["output_dir"] == str(study / "out/tskd")
    assert (first["max_epochs"], joint["max_epochs"]) == ("1", "2")
    stages = ("train", "images_2d", "distill", "lite_unet", "averaged", "joint", "semi")
    assert config_names(joint) == [f"{name}.json" for name in stages]
    assert "joint.json" not in first["config_file"]
    for command in commands.values():
        check_overrides(command)


def trainings(study, capsys, *more):
    """Configs of the two trainings of a student, without those that are not the student's."""
    assert call(study, *more, "--dry-run") == 0
    commands = named(capsys)
    for command in commands.values():
        check_overrides(command)
    found = [config_names(command_line(commands[name][2:])) for name in ("training on the labels", "joint training")]
    stages = {f"{name}.json" for name in ("train", "images_2d", "distill", "averaged", "joint", "semi")}
    return [[name for name in names if name not in stages] for names in found]


def test_without_another_network_the_student_is_lite_unet(study, capsys):
    assert trainings(study, capsys) == [["lite_unet.json"]] * 2
    assert trainings(study, capsys, "--overlay", "neighbours") == [["lite_unet.json", "neighbours.json"]] * 2
    assert trainings(study, capsys, "--overlay", "lite_unet") == [["lite_unet.json"]] * 2
    assert paper(study, "--dry-run") == 0
    _, distil, tune = printed(capsys)
    assert "lite_unet.json" in config_names(distil)
    assert config_names(tune)[-1] == "lite_unet.json"


CONFIGS = Path(config_files(STUDENT, ["train"])[0]).parent
NETWORKS = [file.stem for file in CONFIGS.glob("*.json") if '"network_def": {' in file.read_text(encoding="utf-8")]
OVERLAYS = sorted({*NETWORKS, "unetr"} - {"train", "lite_unet", "inference"})


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_that_names_a_network_is_the_student(study, capsys, name):
    assert trainings(study, capsys, "--overlay", name) == [[f"{name}.json"]] * 2


def test_unetr_is_the_network_of_train_json():
    given, named = (merged_config(STUDENT, configs) for configs in (("train",), ("train", "unetr")))
    described = {"_desc_": named["network_def"]["_desc_"]}
    assert named == {**given, "network_def": {**given["network_def"], **described}}
    assert given["network_def"]["_target_"] == "UNETR"


def test_weights_of_the_student_that_cannot_be_had_are_named_before_anything_runs(study, recorded, monkeypatch, capsys):
    def offline(_):
        raise TskdError("efficientnet_lite0: no connection. By hand: ...")

    monkeypatch.setattr("tskd.workflow.distil.get_weights", offline)
    assert call(study) == 2
    error = capsys.readouterr().err
    assert "efficientnet_lite0: no connection. By hand: ..." in error
    assert "Or take a student that starts from random weights: --overlay flexible_unet" in error
    assert not recorded
    for more in (["--set", "encoder_weights=random"], ["--overlay", "unetr"], ["--overlay", "flexible_unet"]):
        assert call(study, *more) == 0
    assert len(recorded) == 9


def test_soft_labels_alone_teach_the_unlabelled_images_when_asked(study, capsys):
    assert call(study, "--order", "joint", "--dry-run") == 0
    assert config_names(command_line(named(capsys)["joint training"][2:]))[-2:] == ["averaged.json", "joint.json"]


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


def test_after_a_joint_training_the_better_student_is_the_result(study, recorded, capsys):
    head = "epoch,step,name,value\n1,1,validation_val_mean_dice,"
    for name, dice in (("teacher", 0.7), ("out/supervised", 0.8), ("out/tskd", 0.75)):
        (study / name).mkdir(parents=True, exist_ok=True)
        (study / name / "train_log.csv").write_text(f"{head}{dice}\n")
    assert call(study) == 0
    assert steps(recorded) == ["run", "supervised", "tskd"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(study / "out/supervised/models/model.pt")
    assert "0.800 by the labels alone, 0.750 with soft labels (-0.050)" in lines[-2]
    assert any("teacher 0.700, student of the labels 0.800. The teacher is not ahead" in line for line in lines)


def test_in_rounds_each_student_teaches_the_next(study, capsys):
    assert call(study, "--rounds", "3", "--num-labelled", "1", "--dry-run") == 0
    commands = named(capsys)
    assert list(commands) == [
        "soft labels", "training on the labels",
        "joint training of tskd_round_1", "bundle of tskd_round_1", "soft labels of tskd_round_1",
        "joint training of tskd_round_2", "bundle of tskd_round_2", "soft labels of tskd_round_2", "joint training",
    ]  # fmt: skip
    first, second, last = (command_line(commands[f"joint training{end}"][2:]) for end in (
        " of tskd_round_1", " of tskd_round_2", "",
    ))  # fmt: skip
    assert [ast.literal_eval(one["soft_labels"]) for one in (first, second, last)] == [
        [str(study / f"out/soft_labels{end}")] for end in ("", "_tskd_round_1", "_tskd_round_2")
    ]
    assert {one["init_weights"] for one in (first, second, last)} == {str(study / "out/supervised/models/model.pt")}
    assert [Path(one["output_dir"]).name for one in (first, second, last)] == ["tskd_round_1", "tskd_round_2", "tskd"]
    made = study / "out/teachers/tskd_round_1/student_segmentation"
    assert commands["bundle of tskd_round_1"][2:6] == ["--run", str(study / "out/tskd_round_1"), "--output", str(made)]
    assert command_line(commands["soft labels of tskd_round_1"][2:])["teacher_bundle"] == str(made)
    assert second["teacher_model"] == str(made / "models/model.pt")
    assert second["loss#terms#embedding#weight"] == "0.0"
    for name, command in commands.items():
        if not name.startswith("bundle"):
            check_overrides(command)


def test_the_labels_alone_are_trained_for_as_long_where_asked(study, capsys):
    more = (
        "--num-labelled",
        "1",
        "--set",
        "image_size=128",
        "--distil",
        "max_epochs=7",
        "batch_size=4",
        "--rounds",
        "2",
    )
    assert call(study, *more, "--fine-tune", "max_epochs=3", "learning_rate=0.01", "--dry-run") == 0
    before = named(capsys)
    assert call(study, *more, "--fine-tune", "max_epochs=3", "learning_rate=0.01", "--baseline", "--dry-run") == 0
    commands = named(capsys)
    assert list(commands) == [*before, "longer training on the labels"]
    assert {name: commands[name] for name in before} == before
    command = commands["longer training on the labels"]
    check_overrides(command)
    first, longer = (command_line(commands[name][2:]) for name in ("training on the labels", list(commands)[-1]))
    assert (
        config_names(longer)
        == config_names(first)
        == ["train.json", "images_2d.json", "lite_unet.json", "averaged.json"]
    )
    changed = {key: value for key, value in longer.items() if first.get(key) != value}
    assert changed == {
        "init_weights": str(study / "out/supervised/models/model.pt"),
        "output_dir": str(study / "out/supervised_longer"), "model_dir": str(study / "out/supervised_longer/models"),
        "max_epochs": "7", "batch_size": "4", "iterations_per_epoch": "50", "accumulation_steps": "1",
        "val_interval": "4",
    }  # fmt: skip
    assert call(study, "--baseline", "--order", "paper", "--dry-run") == 2
    assert "--baseline: expected --order semi or joint" in capsys.readouterr().err


@pytest.mark.parametrize(("longer", "second", "result"), [(0.85, 0.83, "supervised_longer"), (0.78, 0.83, "tskd")])
def test_the_best_of_all_students_is_the_result(study, recorded, capsys, longer, second, result):
    dice = {"supervised": 0.8, "tskd_round_1": 0.82, "tskd": second, "supervised_longer": longer}
    for name, value in dice.items():
        (study / "out" / name).mkdir(parents=True)
        log = f"epoch,step,name,value\n1,50,validation_val_mean_dice,{value}\n"
        (study / "out" / name / "train_log.csv").write_text(log)
    made = study / "out/teachers/tskd_round_1/student_segmentation/models/model.pt"
    for file in (made, study / "out/tskd_round_1/models/model.pt"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"its bundle, from an earlier call")
    assert call(study, "--rounds", "2", "--baseline") == 0
    *_, last, path = capsys.readouterr().out.splitlines()
    assert path == str(study / "out" / result / "models/model.pt")
    assert last.startswith(f"round 2: validation Dice {second:.3f} ")
    assert "No fair comparison" not in last
    (study / "out/tskd_round_1/train_log.csv").write_text(log.replace(str(longer), "0.7"))
    assert call(study, "--rounds", "2") == 0
    *_, last, path = capsys.readouterr().out.splitlines()
    assert last.startswith(f"round 2: validation Dice {second:.3f} (+0.030). No fair comparison: ")
    assert "for 50 steps, the other student for 100 steps. --baseline" in last
    assert path == str(study / "out/tskd/models/model.pt")


@pytest.mark.parametrize("more", [("--rounds", "0"), ("--rounds", "2", "--order", "paper")])
def test_rounds_are_of_joint_trainings(study, capsys, more):
    assert call(study, *more, "--dry-run") == 2
    assert "--rounds: expected 1 or more, and 1 with --order paper" in capsys.readouterr().err
