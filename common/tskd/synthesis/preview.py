"""Draw sample images during training, as PNG and in TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from tskd import ranks
from tskd.handlers.ema import ema_weights
from tskd.synthesis.adapters import DiffusionUNet
from tskd.synthesis.contact_sheet import contact_sheet, save
from tskd.synthesis.sampling import SeededSampler


class SamplePreview:
    """Draw the same few image numbers with the averaged weights, as PNG and in TensorBoard, on rank 0.

    Args:
        sampler: draws the images; their noise is the same every time, so the pictures show progress and nothing else.
        network: network in training, not wrapped for several processes.
        ema: average of its weights.
        output_dir: folder of the run; `samples/epoch_0010.png` and `tensorboard/` in it.
        interval: epochs between two looks.
        count: how many images.
    """

    def __init__(
        self,
        sampler: SeededSampler,
        network: DiffusionUNet,
        ema: EMAModel,
        output_dir: str | os.PathLike[str],
        interval: int = 10,
        count: int = 16,
    ) -> None:
        self.sampler, self.network, self.ema = sampler, network, ema
        self.output_dir = Path(output_dir)
        self.interval, self.count = interval, count

    def attach(self, engine: Engine) -> None:
        """Register on every `interval`-th epoch."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)

    def __call__(self, engine: Engine) -> None:
        """Draw and write."""
        if not ranks.is_first():
            return
        epoch, training = engine.state.epoch, self.network.training
        device = next(self.network.parameters()).device
        self.network.eval()
        with ema_weights(self.ema, self.network):
            images = self.sampler(torch.arange(self.count, device=device), self.network)
        self.network.train(training)
        sheet = contact_sheet(list(images), columns=8 if self.count > 4 else self.count)
        save(sheet, self.output_dir / "samples" / f"epoch_{epoch:04d}.png")
        with SummaryWriter(str(self.output_dir / "tensorboard")) as writer:
            pixels = np.asarray(sheet)
            writer.add_image("samples", pixels, epoch, dataformats="HW" if pixels.ndim == 2 else "HWC")
