"""A limit on the gradient's norm."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from tskd.handlers.updates import updates_weights


class ClipGradients:
    """Scale the gradient down to a norm of `max_norm` before the optimizer's step, so that one batch cannot ruin it.

    Args:
        network: network in training.
        max_norm: largest norm over all parameters; None for no limit.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float | None = 1.0) -> None:
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register between the backward pass and the step of a MONAI trainer."""
        if self.max_norm is not None:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clips in place, where the gradient is complete."""
        if self.max_norm is not None and updates_weights(engine):
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
