"""A stock network in a stock bundle becomes a teacher; what does not fit is named."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR, UNet
from torch.nn import functional

from tskd.errors import TskdError
from tskd.networks import BundleTeacher

UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle as the Model Zoo has them: the channels are a key of the config, the network is one of MONAI."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    config: dict[str, Any] = {"imports": ["$import os"], "classes": 3, "network_def": {"_target_": "UNet", **UNET}}
    config["network_def"]["out_channels"] = "$@classes * len([os.sep])"
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    torch.save(UNet(**UNET).state_dict(), tmp_path / "models" / "model.pt")
    return tmp_path


@torch.no_grad()
def test_is_the_bundles_network(bundle):
    torch.manual_seed(0)
    network, x = UNet(**UNET).eval(), torch.rand(2, 1, 16, 16)
    teacher = BundleTeacher(bundle, 3, 1, 16)
    assert not teacher.network.training
    torch.testing.assert_close(teacher(x), network(x))
    assert list(teacher.forward_features(x)) == ["logits_low"]
    torch.testing.assert_close(teacher.forward_features(x)["logits_low"], network(x))  # thin structures stay
    low = BundleTeacher(bundle, 3, 1, 16, pooling=4).forward_features(x)
    torch.testing.assert_close(low["logits_low"], functional.interpolate(network(x), scale_factor=0.25, mode="area"))


def test_reads_the_network_from_the_train_config_too(bundle):
    (bundle / "configs" / "inference.json").rename(bundle / "configs" / "train.json")
    assert BundleTeacher(bundle, 3, 1, 16).name == "UNet"


def test_what_does_not_fit(bundle):
    with pytest.raises(TskdError, match="expected the folder of a MONAI bundle, with configs/, found None"):
        BundleTeacher(None, 3, 1, 16)
    with pytest.raises(TskdError, match=r"to logits \(1, 5, 16, 16\), found \(1, 3, 16, 16\)"):
        BundleTeacher(bundle, 5, 1, 16)
    with pytest.raises(TskdError, match=r"from images \(1, 2, 16, 16\) .*expected input"):
        BundleTeacher(bundle, 3, 2, 16)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    torch.save({**state, "extra": torch.zeros(1)}, bundle / "models" / "model.pt")
    with pytest.raises(TskdError, match="unexpected extra"):
        BundleTeacher(bundle, 3, 1, 16)
    (bundle / "configs" / "inference.json").write_text("{}")
    with pytest.raises(TskdError, match="expected network_def in inference, evaluate, train"):
        BundleTeacher(bundle, 3, 1, 16)


@pytest.mark.parametrize("key", ["model", "state_dict"])
@torch.no_grad()
def test_a_checkpoint_of_a_training_script(bundle, key):
    """MONAI's and Lightning's checkpoints have the weights under a key, beside the optimiser."""
    file, x = bundle / "models" / "model.pt", torch.rand(1, 1, 16, 16)
    expected = BundleTeacher(bundle, 3, 1, 16)(x)
    torch.save({key: torch.load(file, weights_only=True), "epoch": 3}, file)
    assert torch.equal(BundleTeacher(bundle, 3, 1, 16)(x), expected)


SCRIPT = """
from monai.networks.nets import UNETR, UNet
from scripts.parts import FACTOR

class Own(UNet):
    def forward(self, x):
        return FACTOR * super().forward(x)
"""


@torch.no_grad()
def test_a_network_in_the_bundles_own_scripts(bundle, tmp_path_factory, monkeypatch):
    x = torch.rand(1, 1, 16, 16)
    plain = BundleTeacher(bundle, 3, 1, 16)(x)
    monkeypatch.setitem(sys.modules, "scripts", sys)  # somebody else's
    modules, path = set(sys.modules), list(sys.path)
    (bundle / "configs" / "inference.json").write_text(
        json.dumps({"network_def": {"_target_": "scripts.net.Own", **UNET}})
    )
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").touch()
    (bundle / "scripts" / "net.py").write_text(SCRIPT)
    for factor in (2, 3):  # as two bundles with scripts of the same name
        (bundle / "scripts" / "parts.py").write_text(f"FACTOR = {factor}  # {'-' * factor}")
        teacher = BundleTeacher(bundle, 3, 1, 16)
        assert teacher.name == "Own"
        torch.testing.assert_close(teacher(x), factor * plain)
        assert sys.path == path
        assert sys.modules["scripts"] is sys
        assert not {name for name in set(sys.modules) - modules if name.startswith("scripts")}


def test_an_image_size_that_is_no_multiple_of_the_pooling(bundle):
    with pytest.raises(TskdError, match=r"image_size: expected a multiple of pooling = 4, .* found 18"):
        BundleTeacher(bundle, 3, 1, 18, pooling=4)


@torch.no_grad()
def test_other_sizes(bundle):
    """The networks of other bundles are not asked which sizes they take; what they say is passed on."""
    assert [BundleTeacher(bundle, 3, 1, size).stride for size in (12, 24, 48, 96, 128)] == [4, 8, 16, 32, 32]
    teacher = BundleTeacher(bundle, 3, 1, 16)
    assert teacher.forward_features(torch.rand(1, 1, 24, 24))["logits_low"].shape == (1, 3, 24, 24)
    teacher.network = UNETR(1, 3, (16, 16), feature_size=2, hidden_size=12, mlp_dim=12, num_heads=1, spatial_dims=2)
    with pytest.raises(
        TskdError, match=r"images of 32 x 32, found .* invalid for input of size 48\. Leave the scales of"
    ):
        teacher.forward_features(torch.rand(1, 1, 32, 32))


def test_the_state_dict_is_the_networks(bundle):
    teacher = BundleTeacher(bundle, 3, 1, 16)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert teacher.state_dict().keys() == state.keys()
    changed = {name: value + 1 for name, value in state.items()}
    teacher.load_state_dict(changed)
    assert all(torch.equal(value, changed[name]) for name, value in teacher.network.state_dict().items())
