"""Weights on disk are plain tensors, whole or not there, and load strictly or say why not."""

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from tskd.errors import TskdError
from tskd.state import load_weights, mismatches, save_weights


def network(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


def test_round_trip(tmp_path: Path):
    first, second = network(), network()
    save_weights(first, tmp_path / "new" / "model.pt")
    assert load_weights(second, tmp_path / "new" / "model.pt") is second
    assert not mismatches(first.state_dict(), second.state_dict())
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.pt"]


def test_file_is_a_plain_state_dict(tmp_path: Path):
    """MONAI's CheckpointLoader and MONAI Label read it without this package."""
    save_weights(network(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    network().load_state_dict(state)
    assert all(type(value) is torch.Tensor and not value.requires_grad for value in state.values())


def test_equal_weights_are_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A finished training that is started again writes them once more, and what began with them knows them by hash."""
    weights = network()
    save_weights(weights, tmp_path / "model.pt")
    first = (tmp_path / "model.pt").read_bytes()
    monkeypatch.setattr("tskd.files.os.getpid", lambda: 1)
    save_weights(weights, tmp_path / "model.pt")
    save_weights(weights, tmp_path / "other.pt")
    assert (tmp_path / "model.pt").read_bytes() == (tmp_path / "other.pt").read_bytes() == first


def test_each_misfit_is_named(tmp_path: Path):
    save_weights(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Identity(), nn.Linear(2, 2)), tmp_path / "model.pt")
    with pytest.raises(TskdError) as caught:
        load_weights(network(), tmp_path / "model.pt")
    message = str(caught.value)
    assert str(tmp_path / "model.pt") in message
    for part in (
        "0.weight: expected shape (3, 1, 3, 3), found (4, 1, 3, 3)",
        "missing 1.running_mean",
        "unexpected 2.bias",
        "and 1 more",
    ):
        assert part in message


def test_nothing_is_loaded_where_something_does_not_fit(tmp_path: Path):
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    save_weights(nn.Sequential(nn.Conv2d(1, 3, 3)), tmp_path / "model.pt")
    with pytest.raises(TskdError, match=r"missing 1.bias"):
        load_weights(target, tmp_path / "model.pt")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_missing_and_damaged_files(tmp_path: Path):
    with pytest.raises(TskdError, match="expected a weights file, found none"):
        load_weights(network(), tmp_path / "model.pt")
    save_weights(network(), tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not weights"):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(TskdError, match="a damaged or other one") as caught:
            load_weights(network(), tmp_path / "model.pt")
        assert "weights_only" not in str(caught.value)  # torch's advice would run the code of a file
        assert "\n" not in str(caught.value)


def test_full_disk_keeps_the_old_file(tmp_path: Path):
    save_weights(network(), tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file above 1000 bytes, as on a full disk
        with pytest.raises(TskdError, match="cannot write it"):
            save_weights(network(64), tmp_path / "model.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "model.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_unwritable_folder(tmp_path: Path):
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(TskdError, match=r"models: expected a folder to write to, found a file"):
        save_weights(network(), tmp_path / "models" / "model.pt")
