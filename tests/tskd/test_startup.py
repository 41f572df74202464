"""What every run sets up first."""

import random

import numpy as np
import pytest
import torch

from tskd.errors import TskdError
from tskd.startup import leave_processes, own_device, start_run


@pytest.fixture(autouse=True)
def undone(monkeypatch):
    monkeypatch.setattr("sys.excepthook", __import__("sys").excepthook)
    flags = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32 = flags


def test_a_seed_sets_python_numpy_and_torch(monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest"])
    drawn = []
    for _ in range(2):
        start_run(3)
        drawn.append((random.random(), np.random.random(), torch.rand(()).item()))
    assert drawn[0] == drawn[1]
    assert not torch.backends.cudnn.deterministic


def test_a_mistyped_override_is_refused(monkeypatch, tmp_path):
    (tmp_path / "train.json").write_text('{"max_epochs": 1}')
    monkeypatch.setattr("sys.argv", ["run", "--config_file", str(tmp_path / "train.json"), "--max_epochss", "2"])
    with pytest.raises(TskdError, match="close names: max_epochs"):
        start_run(0)


def test_without_other_processes(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert own_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    leave_processes()
