"""`tskd distil` in its default order: the student, joint training, rounds, and the labels alone for as long."""

import ast
from pathlib import Path

import pytest

from tests.workflow.distil_calls import call, config_names, named, paper, printed, steps
from tskd.errors import TskdError
from tskd.options import check_overrides, command_line
from tskd.workflow.commands import STUDENT, config_files, merged_config


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


def test_after_a_joint_training_the_better_student_is_the_result(study, recorded, capsys):
    head = "epoch,step,name,value\n1,1,validation_val_mean_dice,"
    for name, dice in (("teacher", 0.72), ("out/supervised", 0.8), ("out/tskd", 0.75)):
        (study / name).mkdir(parents=True, exist_ok=True)
        (study / name / "train_log.csv").write_text(f"{head}{dice}\n")
    assert call(study) == 0
    assert steps(recorded) == ["run", "supervised", "tskd"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(study / "out/supervised/models/model.pt")
    assert "0.800 by the labels alone, 0.750 with soft labels (-0.050)" in lines[-2]
    assert any("teacher 0.720, student of the labels 0.800. The teacher is not ahead" in line for line in lines)


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
