"""A student before its first step."""

import pytest
import torch
from monai.networks.nets import UNETR
from torch import nn

from tskd.errors import TskdError
from tskd.networks import configured, initialised
from tskd.state import save_weights


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_momentum_and_statistics_are_set():
    assert configured(network(), None, 1.0, 0.3)[1].momentum == 0.3
    torch.manual_seed(0)
    plain = UNETR(1, 2, (32, 32), spatial_dims=2, hidden_size=24, mlp_dim=24, num_heads=2, feature_size=4)
    weight = plain.vit.patch_embedding.patch_embeddings.weight.clone()
    started = configured(plain, 0.2, 0.5, None)
    torch.testing.assert_close(started.vit.patch_embedding.patch_embeddings.weight, weight / 0.5)


def test_weights_are_loaded_and_modules_frozen(tmp_path):
    other = network()
    save_weights(other, tmp_path / "model.pt")
    loaded = initialised(network(), tmp_path / "model.pt", ["0"])
    assert torch.equal(loaded[0].weight, other[0].weight)
    assert [parameter.requires_grad for parameter in loaded.parameters()] == [False, False, True, True]
    kept = network()
    before = kept[0].weight.clone()
    assert torch.equal(initialised(kept, None, [])[0].weight, before)
    with pytest.raises(TskdError, match="does not fit"):
        initialised(nn.Conv2d(1, 1, 1), tmp_path / "model.pt", [])
