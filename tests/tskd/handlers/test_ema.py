"""The average of the weights: updated, lent, restored."""

import pytest
import torch
from diffusers.training_utils import EMAModel
from ignite.engine import Engine, Events

from tskd.handlers import EmaHandler, ema_weights, trainable


def linear(value=0.0):
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(value)
    return module


def trainer(module):
    def step(engine, batch):
        module.weight.data.add_(1.0)

    return Engine(step)


def test_average_follows_the_published_warm_up():
    module = linear()
    ema = EMAModel(module.parameters(), decay=0.9)
    engine = trainer(module)
    EmaHandler(ema, module).attach(engine)
    engine.run(range(5))
    expected = 0.0
    for step, weight in enumerate([1.0, 2.0, 3.0, 4.0, 5.0]):
        decay = 0.0 if step == 0 else min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    assert ema.shadow_params[0].item() == pytest.approx(expected)


def test_validator_sees_the_average_and_training_goes_on_with_its_own_weights():
    module, seen = linear(), []
    ema = EMAModel(module.parameters(), decay=0.9)
    validator = Engine(lambda engine, batch: seen.append(module.weight.item()))
    engine = trainer(module)
    validator.add_event_handler(Events.COMPLETED, lambda: seen.append(module.weight.item()))  # as an export would
    EmaHandler(ema, module, validator).attach(engine)
    validator.add_event_handler(Events.COMPLETED, lambda: seen.append(module.weight.item()))
    after = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: after.append((validator.run([0]), module.weight.item())))
    engine.run(range(3), max_epochs=2)
    assert [weight for _, weight in after] == [3.0, 6.0]
    assert len(seen) == 6
    assert seen[0] == seen[1] == seen[2] != 3.0
    assert seen[3] == seen[4] == seen[5] == ema.shadow_params[0].item() != 6.0


def test_the_network_keeps_the_average_when_training_is_over():
    module = linear()
    ema = EMAModel(module.parameters(), decay=0.9)
    engine = trainer(module)
    EmaHandler(ema, module).attach(engine)
    engine.run(range(3))
    assert module.weight.item() == ema.shadow_params[0].item() != 3.0


def test_frozen_weights_are_left_out():
    network = torch.nn.Sequential(linear(1.0), linear(2.0))
    network[0].requires_grad_(False)
    ema = EMAModel(trainable(network), decay=0.9)
    engine = Engine(lambda engine, batch: network[1].weight.data.add_(1.0))
    EmaHandler(ema, network).attach(engine)
    engine.run(range(3))
    assert len(ema.shadow_params) == 1
    assert network[0].weight.item() == 1.0
    assert network[1].weight.item() == ema.shadow_params[0].item() != 5.0


def test_weights_come_back_when_validation_fails():
    module = linear(2.0)
    ema = EMAModel([torch.nn.Parameter(torch.zeros(1, 1))])

    def fail(engine, batch):
        raise RuntimeError("no validation today")

    validator = Engine(fail)
    EmaHandler(ema, module, validator).attach(Engine(lambda engine, batch: None))
    with pytest.raises(RuntimeError, match="today"):
        validator.run([0])
    assert module.weight.item() == 2.0


def test_context_lends_and_takes_back():
    module = linear(2.0)
    ema = EMAModel([torch.nn.Parameter(torch.full((1, 1), 7.0))])

    def fail_inside():
        with ema_weights(ema, module):
            raise KeyError(module.weight.item())

    with pytest.raises(KeyError, match="7"):
        fail_inside()
    assert module.weight.item() == 2.0


def test_a_restored_average_continues_as_an_uninterrupted_one():
    def run(steps, state=None, start=0.0):
        module = linear(start)
        ema = EMAModel(module.parameters(), decay=0.9)
        if state:
            ema.load_state_dict(state)
        engine = trainer(module)
        EmaHandler(ema, module).attach(engine)
        engine.run(range(steps))
        return ema

    assert run(3, run(4).state_dict(), 4.0).shadow_params[0].item() == run(7).shadow_params[0].item()
