"""`tskd evaluate --run RUN`: the command has the settings of the run."""

import json
from pathlib import Path
from typing import Any

import pytest

from tskd.data import write
from tskd.errors import TskdError
from tskd.files import sha256
from tskd.options import check_overrides, command_line
from tskd.workflow.evaluate_run import evaluate_command, find_dataset


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A student's run at `runs/student`, with the data set in `dataset/` above it."""
    (tmp_path / "dataset").mkdir()
    for name in "ab":
        (tmp_path / f"dataset/{name}.png").write_text(name)
    entry = {"image": "a.png", "label": "a.png", "group": "1", "case": "a"}
    labels = {"0": "background", "1": "liver"}
    content = {"name": "n", "modality": "MR", "channels": 1, "labels": labels, "training": [entry]}
    write(
        tmp_path / "dataset/dataset.json",
        {**content, "validation": [], "test": [{"image": "b.png", "label": "b.png", "group": "2", "case": "b"}]},
    )
    folder = tmp_path / "runs/student"
    (folder / "models").mkdir(parents=True)
    (folder / "models/model.pt").touch()
    return folder


def options(run: Path, made_with: dict[str, Any]) -> dict[str, Any]:
    (run / "versions.json").write_text(json.dumps(made_with))
    command = evaluate_command(run)
    check_overrides(command[1:])  # raises where a key is in none of the config files
    return command_line(command[1:])


def test_it_has_the_size_the_overlay_and_the_keys_of_the_network(run: Path) -> None:
    settings = {"image_size": 96, "num_classes": 2, "num_labelled": 8, "seed": 3, "dataset_file": "dataset.json"}
    made_with = {"settings": settings, "config": ["train.json", "segresnet.json"]}
    keys = {"network_def#init_filters": 8}
    found = options(run, {**made_with, "network_keys": keys})
    assert (found["image_size"], found["num_labelled"], found["seed"]) == ("96", "8", "3")
    assert found["network_def#init_filters"] == "8"
    assert "segresnet.json" in found["config_file"]
    assert "images_2d.json" in found["config_file"]
    assert "network_def#init_filters" not in options(run, made_with)  # of a run before they were written


def test_flips_reach_the_evaluation_and_those_that_hurt_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "versions.json").write_text(json.dumps({"settings": {"image_size": 96}, "config": ["train.json"]}))
    assert "flips" not in command_line(evaluate_command(run)[1:])
    command = evaluate_command(run, flips=("x", "y"))
    check_overrides(command[1:])
    assert command_line(command[1:])["flips"] == "['x', 'y']"
    assert "warning: --flips x y: images of MR are not mirrored" in capsys.readouterr().out
    file = tmp_path / "dataset/dataset.json"
    file.write_text(file.read_text().replace('"MR"', '"dermoscopy"').replace("liver", "left kidney"))
    evaluate_command(run, flips=("y",))
    assert capsys.readouterr().out == ""
    with pytest.raises(TskdError, match="found left kidney, which would be averaged"):
        evaluate_command(run, flips=("x",))


def test_a_mistyped_key_is_named_with_those_close_to_it(run: Path) -> None:
    made_with = {"settings": {"image_size": 96}, "config": ["train.json"]}
    (run / "versions.json").write_text(json.dumps(made_with))
    with pytest.raises(TskdError, match=r"validat#dataset: no such key; close names: validate"):
        evaluate_command(run, more={"validat#dataset": "x"})


def test_what_is_no_run_is_named(run: Path) -> None:
    with pytest.raises(TskdError, match=r"found no .*versions\.json"):
        evaluate_command(run)


def test_the_data_set_is_found_where_the_run_says_and_by_its_checksum(run: Path, tmp_path: Path) -> None:
    above = tmp_path / "dataset/dataset.json"
    assert find_dataset(run) == above
    elsewhere = tmp_path / "prepared/liver/dataset.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text("{}")
    data = {"file": "../../prepared/liver/dataset.json", "sha256": sha256(elsewhere)}
    (run / "versions.json").write_text(json.dumps({"data": data}))
    assert find_dataset(run).resolve() == elsewhere
    (run / "versions.json").write_text(json.dumps({"data": {**data, "sha256": sha256(above)}}))
    assert find_dataset(run) == above
    above.unlink()
    elsewhere.unlink()
    with pytest.raises(TskdError, match="--dataset-file"):
        find_dataset(run)


def test_a_split_drawn_anew_into_the_same_folder_is_not_scored_unnoticed(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "dataset/dataset.json"
    made_with = {"settings": {"image_size": 96}, "config": ["train.json"], "data": {"sha256": sha256(file)}}
    (run / "versions.json").write_text(json.dumps(made_with))
    assert f"dataset_dir={file.parent}" in " ".join(evaluate_command(run)).replace("--dataset_dir ", "dataset_dir=")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "training": content["test"], "test": content["training"]}))
    with pytest.raises(TskdError, match=r"expected the dataset.json that .* was trained with.*--dataset-file"):
        evaluate_command(run)
    assert not caplog.records
    assert evaluate_command(run, dataset_file=file)
    assert "patients of its test list were in that training, the numbers are too good" in caplog.text


def test_a_run_that_is_not_there_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(TskdError) as error:
        find_dataset(tmp_path / "nowhere")
    assert str(error.value) == f"{tmp_path}/nowhere: expected the folder of a training, found none. Correct --run"
