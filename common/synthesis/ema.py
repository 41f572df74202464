"""Exponential moving average of the weights: what is validated, sampled from and shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel
from ignite.engine import Engine, Events


@contextmanager
def ema_weights(ema: EMAModel, network: torch.nn.Module) -> Iterator[None]:
    """The network holds the averaged weights inside the block and its own ones after it."""
    parameters = list(network.parameters())
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


class EmaHandler:
    """Updates the average after each iteration, and lends it to the network while it is validated.

    The average itself goes into the checkpoint: name `ema` among the objects of `common.handlers.Checkpointing`.

    Args:
        ema: average over `network.parameters()`.
        network: network in training, not wrapped for several processes.
        validator: engine that validates `network`, or None.
    """

    def __init__(self, ema: EMAModel, network: torch.nn.Module, validator: Engine | None = None) -> None:
        self.ema = ema
        self.network = network
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Registers on the iterations of the training `engine` and around each run of the validator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        if self.validator is not None:
            self.validator.add_event_handler(Events.STARTED, self._lend)
            self.validator.add_event_handler(Events.COMPLETED, self._take_back)
            self.validator.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def __call__(self, engine: Engine) -> None:
        """One step of the average."""
        self._follow_device()
        self.ema.step(self.network.parameters())

    def _lend(self) -> None:
        self._follow_device()
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())

    def _take_back(self) -> None:
        if self.ema.temp_stored_params is not None:
            self.ema.restore(self.network.parameters())

    def _fail(self, engine: Engine, error: Exception) -> None:
        self._take_back()
        raise error

    def _follow_device(self) -> None:
        device = next(self.network.parameters()).device
        if self.ema.shadow_params[0].device != device:  # a checkpoint is read to the CPU
            self.ema.to(device)
