"""Denoising loss of diffusion training, with optional min-SNR weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr
from ignite.metrics import Loss


class DiffusionLoss(torch.nn.Module):
    """Mean squared error of the predicted noise or velocity, optionally with min-SNR weights.

    Weight of timestep t with signal-to-noise ratio s: min(s, gamma) / s for noise, min(s, gamma) / (s + 1) for velocity
    (Hang et al., arXiv 2303.09556). It keeps the nearly clean timesteps from owning the loss, so that good images take
    fewer training steps.

    Args:
        scheduler: training schedule, for its `alphas_cumprod` and `prediction_type`; needed only with `min_snr_gamma`.
        min_snr_gamma: None for equal weights; 5 is the paper's value.
    """

    def __init__(self, scheduler: DDPMScheduler | None = None, min_snr_gamma: float | None = None) -> None:
        super().__init__()
        if min_snr_gamma is not None and (scheduler is None or min_snr_gamma <= 0):
            raise ValueError(f"min_snr_gamma={min_snr_gamma}: expected a positive number, and a scheduler with it")
        self.scheduler = scheduler
        self.min_snr_gamma = min_snr_gamma

    def forward(self, prediction: torch.Tensor, target: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar.

        Args:
            prediction: B x C x X x Y.
            target: (values of the same shape, B timesteps), as `DiffusionBatch` gives them.

        Raises:
            ValueError: the shapes differ.
        """
        values, timesteps = target
        if prediction.shape != values.shape:
            raise ValueError(f"prediction has shape {tuple(prediction.shape)}, the target {tuple(values.shape)}")
        losses = (prediction - values).square().flatten(1).mean(1)
        return (losses * self.weights(timesteps).to(losses)).mean()

    def weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the min-SNR weight of each of B timesteps."""
        if self.scheduler is None or self.min_snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        snr = compute_snr(self.scheduler, timesteps)
        velocity = self.scheduler.config["prediction_type"] == "v_prediction"
        return snr.clamp(max=self.min_snr_gamma) / (snr + 1 if velocity else snr)


def denoising_error() -> Loss:
    """Return the metric by which an epoch is judged: the mean loss over the validation images, without weights."""

    def compared(output: dict[str, Any]) -> tuple[Any, Any]:
        return output["pred"], output["label"]

    return Loss(DiffusionLoss(), output_transform=compared, batch_size=lambda target: len(target[0]))  # type: ignore[arg-type,return-value]
