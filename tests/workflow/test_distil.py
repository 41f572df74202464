"""`tskd distil`: three commands that say what they do, in the order of the method."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from common.cli import main
from common.data import write
from common.options import check_overrides


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


def call(study: Path, *more: str) -> int:
    places = ["--dataset-dir", str(study), "--teacher", str(study / "teacher"), "--output", str(study / "out")]
    return main(["distil", *places, *more])


def test_prints_three_commands_whose_keys_exist(study, capsys):
    more = ("--num-labelled", "1", "--overlay", "segresnet", "--set", "seed=3", "image_size=128")
    assert call(study, *more, "--distil", "max_epochs=2", "--fine-tune", "layer_decay=0.7", "--dry-run") == 0
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
