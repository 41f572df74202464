"""Exponential moving average of a whole network, batch norm statistics included: what is validated and shipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tskd.errors import TskdError
from tskd.handlers.updates import updates_weights


def averaged_network(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """Return a moving average of the network, on its device: `.module` is the averaged network.

    After n updates an update keeps min(`decay`, (1 + n) / (10 + n)) of the average, so that the start is soon
    forgotten. Parameters and floating-point buffers are averaged, counters are copied.

    Args:
        network: network in training.
        decay: at least 0 and below 1; None for no average.

    Raises:
        TskdError: for a decay out of its range.
    """
    if decay is None:
        return None
    if not 0 <= decay < 1:
        raise TskdError(f"ema_decay: expected a number from 0 to below 1, or null for no average, found {decay}")

    @torch.no_grad()
    def update(averages: Sequence[Tensor], values: Sequence[Tensor], _: Tensor | int) -> None:
        count = float(average.n_averaged)  # on the CPU: what is passed is its copy on the device, which waits for it
        kept = min(decay, (1 + count) / (10 + count))
        for mean, value in zip(averages, values, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), 1 - kept)
            else:
                mean.copy_(value)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average


class NetworkAverage:
    """Updates a network's moving average after each update of its weights.

    Name the average among the objects of `Checkpointing`, and give its `.module` to the validation and to what exports.

    Args:
        average: made by `averaged_network`.
        network: network in training, not wrapped for several processes.
    """

    def __init__(self, average: AveragedModel, network: nn.Module) -> None:
        self.average = average
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Register on the iterations of the training `engine`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """One step of the average."""
        if updates_weights(engine):
            self.average.update_parameters(self.network)
