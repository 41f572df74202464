"""Autocast inside, float32 outside, depthwise convolutions in float32 on a CPU."""

import pytest
import torch
from torch import nn

from tskd.errors import TskdError
from tskd.inferers import AutocastInferer


class Seen(nn.Module):
    """Remembers the type its linear layer computed in."""

    def __init__(self, shape=lambda y: y):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.shape = shape

    def forward(self, x):
        y = self.linear(x)
        self.dtype = y.dtype
        return self.shape(y)


SHAPES = {
    "tensor": lambda y: y,
    "dict": lambda y: {"logits": y, "features": y * 2},
    "list": lambda y: [y, y * 2],
    "dict with a list": lambda y: {"logits": y, "auxiliary": [y * 2, y * 3]},
}


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_computes_in_the_type_and_returns_float32(dtype, shape):
    network, x = Seen(SHAPES[shape]), torch.rand(4, 8)
    outputs = AutocastInferer(dtype)(x, network)
    assert network.dtype == (torch.float32 if dtype is None else torch.bfloat16)
    expected = SHAPES[shape](network.linear(x))
    torch.testing.assert_close(outputs, expected, atol=0 if dtype is None else 0.05, rtol=0)  # types are compared too


def test_gradients_reach_the_network_in_float32():
    network = Seen()
    AutocastInferer("bfloat16")(torch.rand(4, 8), network).sum().backward()
    assert network.linear.weight.grad.dtype == torch.float32
    assert network.linear.weight.grad.abs().sum() > 0


def test_no_autocast_is_the_network_itself():
    network, x = Seen(), torch.rand(4, 8)
    assert torch.equal(AutocastInferer()(x, network), network(x))
    assert torch.equal(AutocastInferer("float32")(x, network), network(x))


def test_float16_is_refused():
    with pytest.raises(TskdError, match="amp_dtype: expected bfloat16, float32 or None, found 'float16'"):
        AutocastInferer("float16")


class Convolutions(nn.Module):
    """A plain convolution and a depthwise one, which remember the type of their results."""

    def __init__(self):
        super().__init__()
        self.plain, self.depthwise = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)

    def forward(self, x):
        y = self.plain(x)
        z = self.depthwise(y)
        self.dtypes, self.between, self.last = (y.dtype, z.dtype), y, z
        return z


def test_depthwise_convolutions_compute_in_float32_on_a_cpu():
    torch.manual_seed(0)
    network, x = Convolutions(), torch.rand(2, 4, 8, 8)
    AutocastInferer("bfloat16")(x, network).sum().backward()
    assert network.dtypes == (torch.bfloat16, torch.bfloat16)
    exact = network.depthwise(network.between.float())
    assert torch.equal(network.last, exact.bfloat16())  # rounded once, at its end
    assert all(parameter.grad.dtype == torch.float32 for parameter in network.parameters())


class Compiled:
    """Looks as what `torch.compile` returns."""

    def __init__(self, network):
        self._orig_mod = network

    def __call__(self, x):
        return self._orig_mod(x)


def test_a_compiled_network_keeps_autocast_alone():
    network, x = Convolutions(), torch.rand(2, 4, 8, 8)
    AutocastInferer("bfloat16")(x, Compiled(network))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.depthwise(network.between), network.last)
