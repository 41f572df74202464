"""Tapped features are those of the named module, and the tapped network stays as it was."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
from monai.networks.nets import UNETR, BasicUNet
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tskd.errors import TskdError
from tskd.networks import TappedNetwork


@pytest.fixture
def unetr() -> UNETR:
    torch.manual_seed(0)
    return UNETR(1, 3, (64, 32), spatial_dims=2, hidden_size=24, mlp_dim=48, num_heads=3, feature_size=4)


@pytest.fixture
def unet() -> BasicUNet:
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(4, 4, 8, 8, 16, 4))


@torch.no_grad()
def test_tokens_become_a_map_of_the_images_proportions(unetr):
    unetr.eval()
    x = torch.rand(2, 1, 64, 32)
    out = TappedNetwork(unetr, "vit.norm").eval()(x)
    assert torch.equal(out["logits"], unetr(x))
    tokens = unetr.vit(x)[0]  # UNETR reads the encoder's output from here
    assert out["features"].shape == (2, 24, 4, 2)
    for i in range(4):
        for j in range(2):
            assert torch.equal(out["features"][:, :, i, j], tokens[:, i * 2 + j])


@torch.no_grad()
def test_maps_are_kept(unet):
    unet.eval()
    x = torch.rand(1, 1, 32, 32)
    out = TappedNetwork(unet, "down_4").eval()(x)
    expected = unet.down_4(unet.down_3(unet.down_2(unet.down_1(unet.conv_0(x)))))
    assert torch.equal(out["features"], expected)
    assert out["features"].shape == (1, 16, 2, 2)


class _ChannelsLast(nn.Module):
    """As a stage of a Swin transformer gives its features."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Identity()

    def forward(self, x):
        return self.stage(x.movedim(1, -1)).movedim(-1, 1)


@torch.no_grad()
@pytest.mark.parametrize("channels", [3, 16])
def test_channels_that_come_last_are_put_first(channels):
    x = torch.rand(2, channels, 8, 4)
    out = TappedNetwork(_ChannelsLast(), "stage")(x)
    assert torch.equal(out["features"], x)
    assert torch.equal(out["logits"], x)


@pytest.mark.parametrize(("tap", "grid"), [("down_4", (2, 2)), ("down_1", (16, 16))])
def test_projection(unet, tap, grid):
    torch.manual_seed(0)
    tapped = TappedNetwork(unet, tap, embedding_channels=7, example_shape=(1, 1, 32, 32))
    out = tapped(torch.rand(2, 1, 32, 32))
    assert out["embedding"].shape == (2, 7, *grid)
    assert torch.equal(out["embedding"], tapped.projection(out["features"]))
    out["embedding"].square().mean().backward()
    assert tapped.projection.weight.grad.abs().sum() > 0
    assert unet.conv_0.conv_0.conv.weight.grad.abs().sum() > 0


def test_the_network_keeps_its_state_and_mode():
    unet = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    unet[1].eval()
    before = copy.deepcopy(unet.state_dict())
    tapped = TappedNetwork(unet, "1", embedding_channels=3, example_shape=(2, 1, 8, 8))
    after = tapped.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert before.keys() == after.keys()
    assert (unet.training, unet[1].training) == (True, False)
    assert {key for key in tapped.state_dict() if not key.startswith("network.")} == {
        "projection.weight",
        "projection.bias",
    }


def test_no_hook_outlives_the_forward(unet):
    tapped = TappedNetwork(unet, "down_1")
    tapped(torch.rand(1, 1, 32, 32))
    with pytest.raises(RuntimeError):
        tapped(torch.rand(1, 5, 32, 32))
    assert not unet.down_1._forward_hooks


@torch.no_grad()
def test_a_copy_is_independent(unet):
    tapped = TappedNetwork(unet, "down_1", 3, (1, 1, 32, 32)).eval()
    twin, x = copy.deepcopy(tapped), torch.rand(1, 1, 32, 32)
    expected = tapped(x)["embedding"]
    for parameter in tapped.parameters():
        parameter.zero_()
    assert torch.equal(twin(x)["embedding"], expected)
    assert tapped(x)["embedding"].abs().sum() == 0


def test_autocast(unetr):
    tapped = TappedNetwork(unetr, "vit.norm", 5, (1, 1, 64, 32))
    with torch.autocast("cpu", torch.bfloat16):
        out = tapped(torch.rand(1, 1, 64, 32))
    assert out["embedding"].dtype == torch.bfloat16
    out["embedding"].float().mean().backward()
    assert tapped.projection.weight.grad.abs().sum() > 0


# freed at once, the reducer of a gloo group waits for a thread that waits for the interpreter: a rare deadlock
_kept: list[torch.nn.Module] = []


def test_distributed(unet, tmp_path):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        tapped = DistributedDataParallel(TappedNetwork(unet, "down_4", 5, (1, 1, 32, 32)))
        _kept.append(tapped)
        for _ in range(2):  # the second forward raises if a parameter had no gradient in the first
            out = tapped(torch.rand(1, 1, 32, 32))
            (out["logits"].mean() + out["embedding"].mean()).backward()
            assert all(parameter.grad is not None for parameter in tapped.parameters())
    finally:
        dist.destroy_process_group()


class _Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.pair, self.unused, self.odd = _Pair(), nn.Identity(), nn.Identity()

    def forward(self, x):
        self.odd(x.flatten(2).transpose(1, 2)[:, 1:])
        return [self.pair(x)[0], x]


class _Pair(nn.Module):
    def forward(self, x):
        return x * 2, x


def test_the_first_of_several_outputs():
    x = torch.rand(1, 1, 4, 4)
    out = TappedNetwork(_Several(), "pair")(x)
    assert torch.equal(out["logits"], 2 * x)
    assert torch.equal(out["features"], 2 * x)


def test_wrong_taps(unetr, unet):
    with pytest.raises(TskdError, match=r"tap: UNETR has no module 'vit\.nrom'; did you mean vit\.norm.*encoder1"):
        TappedNetwork(unetr, "vit.nrom")
    with pytest.raises(TskdError, match="no module ''"):
        TappedNetwork(unet, "")
    with pytest.raises(TskdError, match="needs example_shape"):
        TappedNetwork(unet, "down_1", embedding_channels=4)
    x = torch.rand(1, 1, 4, 4)
    with pytest.raises(TskdError, match="did not run its module 'unused'"):
        TappedNetwork(_Several(), "unused")(x)
    with pytest.raises(TskdError, match=r"proportions of the 4 x 4 image .*found \(1, 15, 1\)"):
        TappedNetwork(_Several(), "odd")(x)
