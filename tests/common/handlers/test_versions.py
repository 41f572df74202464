"""What a run was made with, and nothing about the person who ran it."""

import getpass
import json
import os
import socket
from importlib import metadata

import pytest

from common.handlers import WriteVersions


def test_versions_tell_what_but_not_who_and_where(run_engine, tmp_path, monkeypatch):
    folder = tmp_path / getpass.getuser() / socket.gethostname()
    config = [str(folder / "configs" / name) for name in ("train.json", "distill.json")]
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
        assert content["settings"] == {
            "seed": 3, "init_weights": "model.pt", "fine_tuning": {"rank": 4, "from": "a.pt"}, "files": ["b.json"],
            "num_labelled": None,
        }  # fmt: skip
        assert content["packages"]["torch"] == metadata.version("torch")
        assert content["iterations"] == engine.state.iteration == 6
        assert content["seconds"] >= 0
        for private in (str(tmp_path), os.path.expanduser("~"), socket.gethostname()):
            assert private not in text


def test_versions_are_there_from_the_start(run_engine, tmp_path):
    def step(_engine, _batch):
        assert "packages" in json.loads((tmp_path / "versions.json").read_text())
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_engine([WriteVersions(tmp_path)], 1, step)
    assert "seconds" not in json.loads((tmp_path / "versions.json").read_text())
