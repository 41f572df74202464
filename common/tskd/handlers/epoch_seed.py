"""Reproducible random augmentation that survives a restart."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events

from tskd import ranks


class EpochSeed:
    """Seeds torch at the start of every epoch from (seed, epoch, rank).

    A run that is stopped and resumed at an epoch boundary then draws the same augmentation as an uninterrupted one,
    without any generator state in the checkpoint.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Register on `EPOCH_STARTED`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seeds torch (CPU and CUDA)."""
        torch.manual_seed((self.seed * 100_003 + engine.state.epoch) * 1_009 + ranks.rank())
