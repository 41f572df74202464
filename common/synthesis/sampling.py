"""Images from noise: image k is a function of the model, the seed and k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from monai.inferers import Inferer

from common.errors import TskdError
from common.synthesis.adapters import from_model_range

SAMPLERS = ("ddpm", "ddim", "dpmsolver++")

# The last timestep is pure noise in training, so sampling starts there (arXiv 2305.08891); diffusers' default spacing
# ("leading") starts one stride earlier. The DDPM walks all or most timesteps and keeps what its config says.
_FEW_STEPS = {"timestep_spacing": "trailing"}
# DPM-Solver++ has no `clip_sample`; "thresholding" with a maximum of 1 clips the predicted image to [-1, 1] alike.
_CLIP = {"thresholding": True, "sample_max_value": 1.0}


def build_sampler(
    scheduler: DDPMScheduler, sampler: str
) -> DDPMScheduler | DDIMScheduler | DPMSolverMultistepScheduler:
    """A diffusers scheduler that samples with the noise schedule of the training scheduler.

    Args:
        scheduler: training schedule.
        sampler: "ddpm" (as many steps as in training, or nearly), "ddim" (50 and more) or "dpmsolver++" (20 to 25).

    Raises:
        TskdError: unknown sampler.
    """
    if sampler == "ddpm":
        return DDPMScheduler.from_config(scheduler.config)
    if sampler == "ddim":
        return DDIMScheduler.from_config(scheduler.config, **_FEW_STEPS)
    if sampler == "dpmsolver++":
        clip = _CLIP if scheduler.config["clip_sample"] else {}
        return DPMSolverMultistepScheduler.from_config(
            scheduler.config, variance_type=None, algorithm_type="dpmsolver++", solver_order=2, **_FEW_STEPS, **clip
        )
    raise TskdError(f"sampler: expected one of {', '.join(SAMPLERS)}, found {sampler!r}")


class SeededSampler(Inferer):
    """Samples images by their numbers.

    All noise of image k comes from one CPU generator seeded by (seed, k): the starting noise and, for "ddpm", that of
    every step. So neither the batch it is in nor the device changes it. What the network adds up in another order for
    another batch would still change the last bits: on a CPU, where batches gain little, images are therefore made one
    by one and have the same bytes whatever the batch; on other devices batches are filled up to `batch_size`.

    Args:
        scheduler: training schedule.
        sampler: one of `SAMPLERS`.
        steps: denoising steps, at most those of the training schedule.
        seed: seed of the whole set.
        shape: (channels, x, y) of an image; taken from the network where left out.
        batch_size: images at once on an accelerator.

    Raises:
        TskdError: unknown sampler, or a number of steps outside 1 .. training steps.
    """

    def __init__(
        self,
        scheduler: DDPMScheduler,
        sampler: str = "dpmsolver++",
        steps: int = 25,
        seed: int = 0,
        shape: Sequence[int] | None = None,
        batch_size: int = 1,
    ) -> None:
        super().__init__()
        limit = scheduler.config["num_train_timesteps"]
        if not 1 <= steps <= limit:
            raise TskdError(f"steps: expected 1 to {limit} (the training schedule's), found {steps}")
        self.scheduler = build_sampler(scheduler, sampler)
        self.sampler, self.steps, self.seed = sampler, steps, seed
        self.shape = None if shape is None else tuple(shape)
        self.batch_size = batch_size

    @property
    def settings(self) -> dict[str, Any]:
        """What, besides the model, an image depends on."""
        return {"sampler": self.sampler, "steps": self.steps, "seed": self.seed}

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Images of the numbers `inputs` (B whole numbers): B x C x X x Y in [0, 1], on the device of `inputs`."""
        numbers = inputs.flatten().tolist()
        if inputs.device.type == "cpu" and len(numbers) > 1:
            return torch.cat([self(number, network) for number in inputs.flatten().split(1)])
        count = len(numbers)
        if inputs.device.type != "cpu":
            numbers += [numbers[-1]] * (self.batch_size - count)
        generators = [torch.Generator().manual_seed(image_seed(self.seed, number)) for number in numbers]
        shape = self.shape or image_shape(network)
        image = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(inputs.device)
        extra: dict[str, Any] = {"generator": generators} if self.sampler == "ddpm" else {}
        self.scheduler.set_timesteps(self.steps, device=inputs.device)
        for timestep in self.scheduler.timesteps:
            prediction = network(x=image, timesteps=timestep.expand(len(image)), context=None)
            image = self.scheduler.step(prediction, timestep, image, return_dict=False, **extra)[0]
        return from_model_range(image[:count])


def image_seed(seed: int, number: int) -> int:
    """Seed of one image's generator: 32 bits, for torch ignores higher ones; different for all numbers of one seed."""
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return (start + number * 0x9E3779B1) % 2**32  # an odd factor permutes the 2**32 values


def image_shape(network: Any) -> tuple[int, int, int]:
    """(channels, x, y) of the images that a `DiffusionUNet` was made for."""
    config = getattr(network, "module", network).unet.config
    size = config["sample_size"]
    x, y = (size, size) if isinstance(size, int) else size
    return config["in_channels"], x, y
