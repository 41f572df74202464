"""The moving average of a network against its formula, with batch norm statistics, and through a checkpoint."""

import copy

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from tskd.errors import TskdError
from tskd.handlers import NetworkAverage, averaged_network
from tskd.state import read_tensors, save_tensors


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).double()


def train(model: nn.Module, average: nn.Module, steps: range) -> None:
    """Steps whose input depends on the number of the step only."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(engine: Engine, number: int) -> None:
        x = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()

    engine = Engine(step)
    engine.accumulation_steps = 1  # type: ignore[attr-defined]
    NetworkAverage(average, model).attach(engine)
    engine.run(list(steps), max_epochs=1)


def test_equals_the_formula_in_float64():
    model = network()
    average, expected = averaged_network(model, 0.6), None
    for number in range(12):
        train(model, average, range(number, number + 1))
        state = {key: value.clone() for key, value in model.state_dict().items()}
        kept = min(0.6, (1 + number) / (10 + number))
        if expected is None:
            expected = state  # the first update copies
        for key, value in state.items():
            mixed = kept * expected[key] + (1 - kept) * value if value.is_floating_point() else value
            expected[key] = value if number == 0 else mixed
    assert average is not None
    assert expected is not None
    assert "1.running_var" in expected
    for key, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[key], atol=1e-12, rtol=1e-12)
    assert not torch.equal(average.module.get_parameter("0.weight"), model.get_parameter("0.weight"))


def test_a_resumed_run_has_the_same_average(tmp_path):
    whole = network()
    one = averaged_network(whole, 0.9)
    train(whole, one, range(6))
    first = network()
    other = averaged_network(first, 0.9)
    train(first, other, range(3))
    save_tensors({"network": first.state_dict(), "average": other.state_dict()}, tmp_path / "last.pt")
    state, second = read_tensors(tmp_path / "last.pt"), network()
    again = averaged_network(second, 0.9)
    second.load_state_dict(state["network"])
    again.load_state_dict(state["average"])
    train(second, again, range(3, 6))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in one.state_dict().items())


def test_the_training_network_is_left_alone_and_the_average_learns_nothing():
    model = network()
    plain = copy.deepcopy(model)
    average = averaged_network(model, 0.9)
    train(model, average, range(3))
    train(plain, averaged_network(plain, 0.0), range(3))
    assert torch.equal(model.get_parameter("0.weight"), plain.get_parameter("0.weight"))
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_without_and_out_of_range():
    assert averaged_network(network(), None) is None
    with pytest.raises(TskdError, match="from 0 to below 1, or null for no average, found 1"):
        averaged_network(network(), 1)
