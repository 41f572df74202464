"""What a run was made with, and nothing about the person who ran it."""

import getpass
import json
import os
import socket
from importlib import metadata
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from tskd.errors import TskdError
from tskd.handlers import WriteVersions
from tskd.handlers.versions import network_keys

TRAIN = {"imports": ["$import os"], "output_dir": "$@root + '/out'", "seed": 0, "train": {"steps": 10}, "weights": None}


def write(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.json").write_text(json.dumps({**TRAIN, **changes}))
    return folder / "train.json"


def test_versions_tell_what_but_not_who_and_where(run_engine, tmp_path, monkeypatch):
    folder = tmp_path / getpass.getuser() / socket.gethostname()
    config = [str(folder / "configs" / name) for name in ("train.json", "distill.json")]
    write(folder / "configs").rename(config[1])
    write(folder / "configs")
    settings = {
        "seed": 3, "init_weights": str(folder / "model.pt"), "fine_tuning": {"rank": 4, "from": folder / "a.pt"},
        "files": [str(folder / "b.json")], "num_labelled": None,
    }  # fmt: skip
    for command in (["--config_file", str(config)], [f"--config_file={','.join(config)}", "--seed", "3"]):
        monkeypatch.setattr("sys.argv", ["monai.bundle", "run", *command])
        engine = run_engine([WriteVersions(tmp_path / "out", settings)], 2, data=range(3))
        text = (tmp_path / "out" / "versions.json").read_text()
        content = json.loads(text)
        assert content["config"] == ["train.json", "distill.json"]
        assert content["config_sha256"] is None  # no parser has built the handler
        assert content["settings"] == {
            "seed": 3, "init_weights": "model.pt", "fine_tuning": {"rank": 4, "from": "a.pt"}, "files": ["b.json"],
            "num_labelled": None,
        }  # fmt: skip
        assert content["packages"]["torch"] == metadata.version("torch")
        assert content["iterations"] == engine.state.iteration == 6
        assert content["seconds"] >= 0
        for private in (str(tmp_path), os.path.expanduser("~"), socket.gethostname()):
            assert private not in text


@pytest.mark.parametrize(
    ("flips", "axes"), [({}, []), ({"flip": 0.5}, [0]), ({"flip": 0.5, "flip_y": 0.2}, [0, 1]), ({"flip_y": 1.0}, [1])]
)
def test_versions_tell_how_the_training_mirrors(flips, axes, run_engine, tmp_path):
    augmentation = {"_target_": "tskd.distillation.preset_augmentation", "modality": "MR", **flips}
    parser = ConfigParser({
        "augmentation": augmentation, "used": "$@augmentation.flip",
        "versions": {"_target_": "tskd.handlers.WriteVersions", "output_dir": str(tmp_path)},
    })  # fmt: skip
    parser.get_parsed_content("used")
    run_engine([parser.get_parsed_content("versions")], 1)
    assert json.loads((tmp_path / "versions.json").read_text())["mirrored"] == axes


def test_versions_are_there_from_the_start(run_engine, tmp_path):
    def step(_engine, _batch):
        assert "packages" in json.loads((tmp_path / "versions.json").read_text())
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_engine([WriteVersions(tmp_path)], 1, step)
    assert "seconds" not in json.loads((tmp_path / "versions.json").read_text())


@pytest.mark.parametrize("where", ["before", "after"])
def test_time_of_a_resumed_run_counts_all_its_parts(where, training, tmp_path):
    """Whatever the order of the handlers; a finished run keeps its time, one that starts anew forgets the old one."""
    file = tmp_path / "versions.json"

    def go(**options) -> dict:
        training(tmp_path, **{where: [WriteVersions(tmp_path)]}, **options).go()
        return json.loads(file.read_text())

    killed = go(kill_after=2)
    assert "seconds" not in killed
    assert killed["iterations"] == 6
    file.write_text(json.dumps({**killed, "seconds_so_far": 1000.0}))
    finished = go()
    assert finished["seconds"] >= 1000
    assert finished["iterations"] == 12
    assert go()["seconds"] >= 1000
    assert go(resume="never")["seconds"] < 1000


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_refused_run_leaves_the_earlier_ones_file(where, training, tmp_path):
    training(
        tmp_path, **{where: [WriteVersions(tmp_path, {"size": 512})]}, kill_after=1, fingerprints={"size": 512}
    ).go()
    before = (tmp_path / "versions.json").read_bytes()
    with pytest.raises(TskdError, match="belongs to another run"):
        training(tmp_path, **{where: [WriteVersions(tmp_path, {"size": 256})]}, fingerprints={"size": 256}).go()
    assert (tmp_path / "versions.json").read_bytes() == before


def test_a_damaged_file_is_written_anew(run_engine, tmp_path):
    (tmp_path / "versions.json").write_text('{"python": ')
    run_engine([WriteVersions(tmp_path, {"seed": 1})], 1)
    assert json.loads((tmp_path / "versions.json").read_text())["settings"] == {"seed": 1}


def test_keys_of_the_network_are_told_as_its_model_needs_them(monkeypatch):
    options = ["--network_def#feature_size", "4", "--network_def::norm_name=batch", "--learning_rate", "0.1"]
    monkeypatch.setattr("sys.argv", ["monai.bundle", "run", *options])
    assert network_keys() == {"network_def#feature_size": 4, "network_def#norm_name": "batch"}


def test_the_network_of_an_overlay_that_is_not_the_bundles_is_told(monkeypatch, tmp_path):
    """Also what the bundle's own configs behind it change; the command line comes last."""
    contents = {
        "bundle/configs/train.json": {"network_def": {"_target_": "UNETR"}, "seed": 0},
        "bundle/configs/segresnet.json": {"network_def": {"_target_": "SegResNet"}},
        "mine/my.json": {"network_def#init_filters": 12, "tap": "x"},
        "bundle/configs/neighbours.json": {"network_def#in_channels": "@network_channels"},
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    files = [str(tmp_path / name) for name in contents]
    options = ["--bundle_root", str(tmp_path / "bundle"), "--network_def#dropout_prob", "0.1"]
    monkeypatch.setattr("sys.argv", ["monai.bundle", "run", "--config_file", str(files), *options])
    expected = {"init_filters": 12, "in_channels": "@network_channels", "dropout_prob": 0.1}
    assert network_keys() == {f"network_def#{key}": value for key, value in expected.items()}
    assert list(network_keys())[-1] == "network_def#dropout_prob"
    monkeypatch.setattr("sys.argv", ["monai.bundle", "run", "--config_file", str(files[:2]), *options[:2]])
    assert network_keys() == {}
