"""Heads around a network: what they predict from, what stays as it was, and what is refused."""

import copy

import pytest
import torch
from monai.networks.nets import DynUNet
from torch.nn import functional

from tskd.errors import TskdError
from tskd.networks import DeeplySupervisedNetwork, LiteUNet, TappedNetwork, deeply_supervised, parameter_groups

BLOCKS = ["decoder.1", "decoder.3", "decoder.2"]
SHAPE = (1, 1, 64, 32)


@pytest.fixture
def network() -> LiteUNet:
    torch.manual_seed(0)
    return LiteUNet(1, 3, decoder_channels=(16, 12, 8, 6, 4))


def test_each_head_predicts_from_its_block_the_largest_first(network: LiteUNet) -> None:
    plain, deep = copy.deepcopy(network).train(), DeeplySupervisedNetwork(network, BLOCKS, 3, SHAPE).train()
    assert deep.modules_by_size == ["decoder.3", "decoder.2", "decoder.1"]
    x = torch.rand(2, *SHAPE[1:])
    image = (x.expand(-1, 3, -1, -1) - plain.mean) / plain.std
    features = [image, *plain.encoder(image)]
    y, blocks = features[-1], []
    for i, block in enumerate(plain.decoder):
        y = block(y, features[-2 - i])
        blocks.append(y)
    logits = deep(x)
    assert [tuple(answer.shape) for answer in logits] == [(2, 3, 64, 32), (2, 3, 32, 16), (2, 3, 16, 8), (2, 3, 8, 4)]
    torch.testing.assert_close(logits[0], plain.head(y))
    for answer, head, position in zip(logits[1:], deep.heads, (3, 2, 1), strict=True):
        torch.testing.assert_close(answer, functional.conv2d(blocks[position], head.weight, head.bias))


def test_the_network_inside_is_as_it_was(network: LiteUNet) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    deep = DeeplySupervisedNetwork(network, BLOCKS, 3, SHAPE)
    assert network.training  # also after the run that learns the shapes, which moves no statistic
    assert all(torch.equal(value, before[name]) for name, value in deep.network.state_dict().items())
    x = torch.rand(2, *SHAPE[1:])
    assert torch.equal(deep.eval()(x), network.eval()(x))
    assert deeply_supervised(network, [], 3, SHAPE) is network
    groups = parameter_groups(deep, 0.1, ["encoder._conv_stem"], 0.5)
    heads = {id(parameter) for parameter in deep.heads.parameters()}
    assert {id(parameter) for group in groups if group["lr"] == 0.1 for parameter in group["params"]} >= heads
    assert [group["lr"] for group in groups] == [0.05, 0.1]


def test_a_tap_reads_the_network_inside(network: LiteUNet) -> None:
    deep = DeeplySupervisedNetwork(network, BLOCKS, 3, SHAPE)
    tapped = TappedNetwork(deep, "decoder.0", 5, SHAPE).train()
    plain = TappedNetwork(copy.deepcopy(network), "decoder.0").train()
    x = torch.rand(2, *SHAPE[1:])
    answers, expected = tapped(x), plain(x)
    assert torch.equal(answers["logits"], expected["logits"])
    assert torch.equal(answers["features"], expected["features"])
    assert [tuple(logits.shape[2:]) for logits in answers["auxiliary"]] == [(32, 16), (16, 8), (8, 4)]
    assert "auxiliary" not in tapped.eval()(x)


def test_what_is_no_block_of_a_2d_network_is_refused(network: LiteUNet) -> None:
    with pytest.raises(TskdError, match=r"deep_supervision: LiteUNet has no module 'decoder.7'; did you mean decoder"):
        DeeplySupervisedNetwork(network, ["decoder.7"], 3, SHAPE)
    with pytest.raises(TskdError, match=r"deep_supervision: expected a list such as \['decoder.3'\], found the text"):
        DeeplySupervisedNetwork(network, "decoder.3", 3, SHAPE)
    volumes = DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2])
    with pytest.raises(TskdError, match=r"deep_supervision: expected features .* of 'input_block'.* found \(1, 32, 16"):
        DeeplySupervisedNetwork(volumes, ["input_block"], 2, (1, 1, 16, 16, 16))
