"""Exponential moving average of the weights: what is validated, sampled from and shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.training_utils import EMAModel
from ignite.engine import Engine, Events
from torch import nn

from tskd.handlers.updates import updates_weights


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that an average is taken of; frozen ones are their own average."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def weight_average(network: nn.Module, decay: float | None) -> EMAModel | None:
    """Return an exponential moving average of the trainable weights, None for a decay of None.

    Args:
        network: network in training.
        decay: share of the average that an update keeps, once the training is past its beginning.
    """
    return None if decay is None else EMAModel(trainable(network), decay=decay, foreach=True)


@contextmanager
def ema_weights(ema: EMAModel, network: nn.Module) -> Iterator[None]:
    """Give the network the averaged weights inside the block and its own ones after it."""
    parameters = trainable(network)
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


class EmaHandler:
    """Updates the average after each update of the weights, and lends it to the network while it is validated.

    What the validator's other handlers do at its end (`BestModel` exports there) sees the average too, whatever the
    order of the handlers. When the training is over, the network keeps the average. The average itself goes into the
    checkpoint: name `ema` among the objects of `Checkpointing`.

    Args:
        ema: average over `trainable(network)`; None for a handler that does nothing.
        network: network in training, not wrapped for several processes.
        validator: engine that validates `network`, or None.
    """

    def __init__(self, ema: EMAModel | None, network: nn.Module, validator: Engine | None = None) -> None:
        self.ema: Any = ema
        self.network = network
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Register on the iterations of the training `engine` and around each run of the validator."""
        if self.ema is None:
            return
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._keep)
        if self.validator is not None:
            self.validator.add_event_handler(Events.STARTED, self._lend)
            self.validator.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def __call__(self, engine: Engine) -> None:
        """One step of the average."""
        if updates_weights(engine):
            self._follow_device()
            self.ema.step(trainable(self.network))

    def _lend(self, validator: Engine) -> None:
        self._follow_device()
        self.ema.store(trainable(self.network))
        self.ema.copy_to(trainable(self.network))
        if not validator.has_event_handler(self._take_back, Events.COMPLETED):
            validator.add_event_handler(Events.COMPLETED, self._take_back)  # so late: the last handler of all

    def _take_back(self) -> None:
        if self.ema.temp_stored_params is not None:
            self.ema.restore(trainable(self.network))

    def _keep(self) -> None:
        self._follow_device()
        self.ema.copy_to(trainable(self.network))

    def _fail(self, engine: Engine, error: Exception) -> None:
        self._take_back()
        raise error

    def _follow_device(self) -> None:
        device = next(self.network.parameters()).device
        if self.ema.shadow_params[0].device != device:  # a checkpoint is read to the CPU
            self.ema.to(device)
