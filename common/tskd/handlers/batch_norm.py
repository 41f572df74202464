"""Precise BatchNorm: re-estimate the running statistics from training batches with the current weights."""

from __future__ import annotations

from itertools import islice

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from tskd import ranks
from tskd.inferers import autocast_dtype, mixed_precision


class _Autocast(nn.Module):
    """A network whose forward, and nothing around it, runs under autocast.

    Drawing a batch under autocast would collate float16 arrays there, which torch refuses on the CPU.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: torch.Tensor) -> object:
        """Return the network's output."""
        with mixed_precision(images.device.type, self.dtype):
            return self.network(images)


class BatchNormStatistics:
    """Re-estimate all batch norms' running statistics from training batches, before each validation and at the end.

    Running statistics follow the last batches only; where these are small, or the weights have just moved, a network
    predicts much worse in evaluation than it has learned. "Precise BN": arXiv 2105.07576, section 3. With several
    processes each takes its own batches and all get the mean. A network without batch norm costs nothing.

    Attach it before what validates and exports.

    Args:
        network: network in training, not wrapped for several processes; it stays in training mode.
        batches: training batches, augmented as in training, at most those of an epoch; 0 leaves the running statistics.
        interval: epochs between two validations.
        dtype: "bfloat16" under autocast, or None.
    """

    def __init__(self, network: nn.Module, batches: int, interval: int, dtype: str | None = None) -> None:
        self.network = network
        self.batches = batches
        self.interval = interval
        self.dtype = autocast_dtype(dtype)
        self.layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]

    def attach(self, engine: Engine) -> None:
        """Register on the epochs of the training `engine` that are validated, and on its last."""
        if self.layers and self.batches > 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._due), self)

    def __call__(self, engine: Engine) -> None:
        """Re-estimate the running statistics."""
        device = engine.state.device  # type: ignore[attr-defined]
        batches = islice(engine.state.dataloader, self.batches)  # type: ignore[arg-type]
        images = (engine.prepare_batch(batch, device, engine.non_blocking)[0] for batch in batches)  # type: ignore[attr-defined]
        update_bn(images, _Autocast(self.network, self.dtype).train())
        for layer in self.layers:
            for statistic in (layer.running_mean, layer.running_var):
                if statistic is not None:
                    statistic.copy_(ranks.mean(statistic))

    def _due(self, engine: Engine, epoch: int) -> bool:
        return epoch % self.interval == 0 or epoch == engine.state.max_epochs
