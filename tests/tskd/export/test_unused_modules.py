"""Modules without use are found by the gradients that they never get, and leave the output as it was."""

import torch
from torch import nn

from tskd.export.unused_modules import unused_modules, without_modules


class _Network(nn.Module):
    """A network with a head that it calls and forgets, another that it never calls, and one spare number."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.forgotten = nn.Sequential(nn.Conv2d(4, width, 3), nn.BatchNorm2d(width))
        self.spare = nn.Linear(width, 2)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.body(x)
        self.forgotten(features)
        return self.out(features)


def test_the_outermost_modules_without_use_are_found() -> None:
    network, image = _Network().eval(), torch.rand(2, 1, 8, 8)
    network.body[0].weight.requires_grad_(False)  # frozen is not unused
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = network(image)
    assert unused_modules(network, image) == ["forgotten", "spare"]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    reduced = without_modules(network, ["forgotten", "spare"])
    assert torch.equal(reduced(image), expected)
    assert {name.split(".")[0] for name in reduced.state_dict()} == {"body", "out"}


def test_a_network_that_uses_everything_or_wastes_little_stays_as_it_is() -> None:
    image = torch.rand(1, 1, 8, 8)
    assert unused_modules(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)), image) == []
    network = _Network(width=1)
    network.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 512, 3), nn.Conv2d(512, 4, 3))
    assert unused_modules(network, image) == []  # 44 of 37,000
