"""A stock network in a stock bundle becomes a teacher; what does not fit is named."""

import json
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNet
from torch.nn import functional

from common.errors import TskdError
from common.networks import BundleTeacher

UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle as the Model Zoo has them: the channels are a key of the config, the network is one of MONAI."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    config = {"imports": ["$import os"], "classes": 3, "network_def": {"_target_": "UNet", **UNET}}
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
    low = teacher.forward_features(x)
    assert list(low) == ["logits_low"]
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
