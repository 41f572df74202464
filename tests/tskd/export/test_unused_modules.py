"""Modules without use are found by the gradients that they never get, and leave the output as it was."""

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from tskd.export.unused_modules import unused_modules, without_modules

CONFIGS = Path(__file__).resolve().parents[3] / "bundles/student_segmentation/configs"
USES = {"evaluate", "inference"}  # of train.json's network
UNSHIPPED = {"volume"}  # a 3-D student: shipping refuses it
OTHERS = USES | UNSHIPPED
STUDENTS = sorted({p.stem for p in CONFIGS.glob("*.json") if "network_def" in json.loads(p.read_text())} - OTHERS)


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


def test_a_network_that_uses_everything_stays_as_it_is() -> None:
    image = torch.rand(1, 1, 8, 8)
    assert unused_modules(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)), image) == []


class _Probed(nn.Module):
    """A network that asks a module it does not use for a number, so that it cannot be built without it."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.spare = nn.Conv2d(1, 2, 1), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x) * self.spare.in_features


def test_a_module_that_is_needed_without_its_parameters_stays() -> None:
    assert unused_modules(_Probed(), torch.rand(1, 1, 8, 8)) == []


def _student(name: str) -> nn.Module:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{file}.json") for file in dict.fromkeys(("train", name))])
    parser.update({"image_size": 64, "num_classes": 3})
    return parser.get_parsed_content("network_def").eval()


@pytest.mark.bundle
@pytest.mark.parametrize("name", STUDENTS)
def test_dropout_is_for_the_training_mode_alone(name: str) -> None:
    """MONAI Label's scores: the network in training mode, its weights and running statistics as they are."""
    network, image = _student(name), torch.rand(1, 1, 64, 64)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network(image)
        dropping = without_modules(network, unused := unused_modules(network, image), dropout=0.3)
        torch.manual_seed(0)
        one, two = dropping.train()(image), dropping(image)
        assert not torch.allclose(one, two)
        assert torch.equal(dropping.eval()(image), expected)
    left = {key: value for key, value in before.items() if key.rpartition(".")[0] not in unused}
    assert {key: torch.equal(value, left[key]) for key, value in dropping.state_dict().items()} == dict.fromkeys(
        left, True
    )


@pytest.mark.bundle
@pytest.mark.parametrize("name", STUDENTS)
def test_every_parameter_of_a_shipped_student_gets_a_gradient(name: str) -> None:
    network, image = _student(name), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = network(image)
    reduced = without_modules(network, unused_modules(network, image))
    output = reduced(image)
    assert torch.equal(output, expected)
    output.square().sum().backward()
    assert not [key for key, value in reduced.named_parameters() if value.grad is None]
