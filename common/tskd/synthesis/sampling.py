"""Sample images from noise: image k is a function of the model, the seed and k."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from monai.inferers import Inferer

from tskd.data.budget import Budget, whole_patients
from tskd.data.datalist import entries, read
from tskd.errors import TskdError
from tskd.synthesis.adapters import from_model_range, label_classes, one_hot
from tskd.synthesis.label_maps import WarpedLabels, labels_sha256
from tskd.synthesis.training_record import read_record

SAMPLERS = ("ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++")
STOCHASTIC_STEPS = 20  # from which the stochastic solver was measured to be the better one
DEFAULT_STEPS = 25  # steps that are enough for all but "ddpm" with cosine betas
BATCH_SIZE = 8  # images in one call of the network on an accelerator, always

# sampler -> (algorithm, order) of diffusers' solver. DDIM is its first order (arXiv 2211.01095, section 4); that of the
# stochastic equation adds noise on the way, as DDPM does, which repairs what the network gets wrong.
SOLVERS = {"ddim": ("dpmsolver++", 1), "dpmsolver++": ("dpmsolver++", 2), "sde-dpmsolver++": ("sde-dpmsolver++", 2)}
# DPM-Solver++ has no `clip_sample`; "thresholding" with a maximum of 1 clips the predicted image to [-1, 1] alike.
_CLIP = {"thresholding": True, "sample_max_value": 1.0}


def default_sampler(steps: int | None) -> str:
    """Return the sampler where none is named: the stochastic solver, whose images were better to learn from.

    That was measured with 20 and 25 steps. With fewer it is the deterministic solver.

    Args:
        steps: as `SeededSampler` takes them; None for its default.
    """
    return "sde-dpmsolver++" if steps is None or steps >= STOCHASTIC_STEPS else "dpmsolver++"


def build_sampler(scheduler: DDPMScheduler, sampler: str) -> DDPMScheduler | DPMSolverMultistepScheduler:
    """Build a diffusers scheduler that samples with the noise schedule of the training scheduler.

    Args:
        scheduler: training schedule.
        sampler: "ddpm" (100 steps and more), "ddim" (50 and more), "dpmsolver++" or "sde-dpmsolver++" (20 to 25).

    Raises:
        TskdError: unknown sampler.
    """
    if sampler == "ddpm":
        return DDPMScheduler.from_config(scheduler.config)
    if sampler in SOLVERS:
        clip = _CLIP if scheduler.config["clip_sample"] else {}
        algorithm, order = SOLVERS[sampler]
        return DPMSolverMultistepScheduler.from_config(
            scheduler.config, variance_type=None, algorithm_type=algorithm, solver_order=order, **clip
        )
    raise TskdError(f"sampler: expected one of {', '.join(SAMPLERS)}, found {sampler!r}")


class SeededSampler(Inferer):
    """Sample images by their numbers, reproducibly.

    All noise of image k comes from one CPU generator seeded by (seed, k): the starting noise and, for "ddpm" and
    "sde-dpmsolver++", that of every step. So neither the batch it is in nor the device changes it. What the network
    adds up in another order for another batch size would still change the last bits. On a CPU, where batches gain
    little, images are therefore made one by one, and on one thread (more threads add up in yet another order); on an
    accelerator always `BATCH_SIZE` together, the last group filled up. So an image has the same bytes on the same
    device, however many are asked for at a time.

    Args:
        scheduler: training schedule.
        sampler: one of `SAMPLERS`.
        steps: denoising steps, at most those of the training schedule; None takes all of these for "ddpm" and 25 for
            the others.
        seed: seed of the whole set.
        shape: (channels, x, y) of an image; taken from the network where left out.
        labels: label map of each number, for a network that is conditioned on one.

    Raises:
        TskdError: unknown sampler, a number of steps outside 1 .. training steps, or a negative seed.
    """

    def __init__(
        self,
        scheduler: DDPMScheduler,
        sampler: str = "dpmsolver++",
        steps: int | None = None,
        seed: int = 0,
        shape: Sequence[int] | None = None,
        labels: WarpedLabels | None = None,
    ) -> None:
        super().__init__()
        limit = scheduler.config["num_train_timesteps"]
        if steps is None:
            steps = limit if sampler == "ddpm" else min(DEFAULT_STEPS, limit)
        if not 1 <= steps <= limit:
            raise TskdError(f"steps: expected 1 to {limit} (the training schedule's), found {steps}")
        if seed < 0:
            raise TskdError(f"seed: expected 0 or more, found {seed}")
        self.schedule = schedule_sha256(scheduler)
        self.scheduler = build_sampler(scheduler, sampler)
        self.sampler, self.steps, self.seed = sampler, steps, seed
        self.shape = None if shape is None else tuple(shape)
        self.labels = labels

    @property
    def settings(self) -> dict[str, Any]:
        """What, besides the model, an image depends on."""
        label_maps = {} if self.labels is None else {"label_maps": self.labels.settings}
        settings = {"sampler": self.sampler, "steps": self.steps, "seed": self.seed, "schedule": self.schedule}
        return {**settings, **label_maps}

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Draw the images of `inputs` (B whole numbers): B x C x X x Y in [0, 1], on the device of `inputs`."""
        if inputs.device.type != "cpu":
            return torch.cat([self._draw(part, BATCH_SIZE, network) for part in inputs.flatten().split(BATCH_SIZE)])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return torch.cat([self._draw(part, 1, network) for part in inputs.flatten().split(1)])
        finally:
            torch.set_num_threads(threads)

    def _set_timesteps(self, device: torch.device) -> None:
        """Set equally spaced timesteps from the last, which alone is pure noise in training (arXiv 2305.08891)."""
        limit = self.scheduler.config["num_train_timesteps"]
        timesteps = (np.round(limit - np.arange(self.steps) * (limit / self.steps)) - 1).astype(int).tolist()
        self.scheduler.set_timesteps(device=device, timesteps=timesteps)

    def _draw(self, inputs: torch.Tensor, size: int, network: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Draw images of at most `size` numbers, made in a batch of exactly `size`."""
        numbers = inputs.tolist()
        numbers += [numbers[-1]] * (size - len(numbers))
        generators = [torch.Generator().manual_seed(image_seed(self.seed, number)) for number in numbers]
        shape = self.shape or image_shape(network)

        def noise() -> torch.Tensor:
            return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(inputs.device)

        # 1. start from pure noise, and from the label map where the network is conditioned on one
        image = noise()
        condition = image[:, :0]
        if self.labels is not None:
            maps = torch.stack([self.labels(number) for number in numbers])
            condition = one_hot(maps.to(inputs.device), self.labels.num_classes)
        extra: dict[str, Any] = {"generator": generators} if self.sampler == "ddpm" else {}
        # 2. denoise: predict the noise (or velocity) at each timestep, and step to the next
        self._set_timesteps(inputs.device)
        for timestep in self.scheduler.timesteps:
            noisy = torch.cat([image, condition], dim=1)
            prediction = network(x=noisy, timesteps=timestep.expand(size), context=None)
            if self.sampler == "sde-dpmsolver++":
                extra = {"variance_noise": noise()}
            image = self.scheduler.step(prediction, timestep, image, return_dict=False, **extra)[0]
        # 3. from [-1, 1] to [0, 1], without those that only filled up the batch
        return from_model_range(image[: len(inputs)])


def folder_settings(model: str, network: Any, device: str | torch.device, draw: SeededSampler) -> dict[str, Any]:
    """Return all that the images of a `SyntheticFolder` depend on: model, precision, kind of device, sampler.

    Args:
        model: what identifies the weights (`weights_sha256`).
        network: a `DiffusionUNet`.
        device: where it runs.
        draw: samples the images.
    """
    precision = None if network.amp_dtype is None else str(network.amp_dtype).removeprefix("torch.")
    return {"model": model, "device": torch.device(device).type, "amp_dtype": precision, **draw.settings}


def check_channels(network: Any, dataset_file: str | os.PathLike[str]) -> None:
    """Raise TskdError where a `DiffusionUNet` draws images of other channels than `dataset_file` has."""
    channels, expected = image_shape(network)[0], read(dataset_file)["channels"]
    if channels != expected:
        raise TskdError(
            f"{dataset_file}: expected images of {channels} channels, as the diffusion model draws them, found "
            f"{expected}. Adapt a pipeline from elsewhere to these images first (train.json with init_from)."
        )


def schedule_sha256(scheduler: DDPMScheduler) -> str:
    """Return the SHA-256 of a schedule's settings in `scheduler_config.json`, without the versions of libraries."""
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def labels_for(
    network: Any,
    dataset_file: str | os.PathLike[str],
    seed: int = 0,
    num_labelled: Budget = None,
    pipeline_dir: str | os.PathLike[str] | None = None,
) -> WarpedLabels | None:
    """Return the label maps that a network draws images to, at its image size; None for a network that takes none.

    Args:
        network: a `DiffusionUNet`.
        dataset_file: dataset.json of its training.
        seed: seed of the whole set.
        num_labelled: labelled budget, as `tskd.data.entries` takes it; None for those of its training.
        pipeline_dir: its exported pipeline, whose `training.json` tells the labelled budget of its training; None, or a
            pipeline from elsewhere, leaves the budget to `num_labelled` alone.

    Raises:
        TskdError: the dataset has other classes than the network or other label maps than its training, or more are
            asked for than that had.
    """
    classes = label_classes(network)
    if classes == 0:
        return None
    record = None if pipeline_dir is None else read_record(pipeline_dir)
    known = record["label_maps"] if record else None
    trained = _trained_budget(dataset_file, known) if known else None
    allowed = _labels(dataset_file, num_labelled if trained is None else trained)
    if known and not set(_labels(dataset_file, num_labelled or trained)) <= set(allowed):
        raise TskdError(
            f"num_labelled: expected at most the {known['count']} label maps that the diffusion model in "
            f"{pipeline_dir} was trained with, found {num_labelled}. Leave it out to take those."
        )
    labels = WarpedLabels(
        dataset_file, image_shape(network)[1:], seed, trained if num_labelled is None else num_labelled
    )
    if labels.num_classes != classes:
        raise TskdError(
            f"{dataset_file}: expected the {classes} classes that the diffusion model was trained with, found "
            f"{labels.num_classes} (key 'labels'). Give the dataset.json of its training."
        )
    if known and trained is None:
        raise TskdError(
            f"{dataset_file}: expected the {known['count']} label maps that the diffusion model in {pipeline_dir} was "
            "trained with in 'training', found others. Give the dataset.json of its training."
        )
    return labels


def _trained_budget(dataset_file: str | os.PathLike[str], known: Mapping[str, Any]) -> Budget:
    """Return the labelled budget whose label maps a training record tells (a number or whole patients), or None."""
    training = read(dataset_file)["training"]
    patients = len({entry["group"] for entry in training})
    budgets: list[Budget] = [known["count"]] if known["count"] <= len(training) else []
    for budget in budgets + [whole_patients(count) for count in range(1, patients + 1)]:
        labels = _labels(dataset_file, budget)
        if len(labels) == known["count"] and labels_sha256(labels) == known["sha256"]:
            return budget
    return None


def _labels(dataset_file: str | os.PathLike[str], budget: Budget) -> list[str]:
    return [entry["label"] for entry in entries(dataset_file, "labelled", budget)]


def image_seed(seed: int, number: int) -> int:
    """Return the seed of one image's generator: 32 bits, for torch ignores higher ones; unique within one seed."""
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return (start + number * 0x9E3779B1) % 2**32  # an odd factor permutes the 2**32 values


def image_shape(network: Any) -> tuple[int, int, int]:
    """Return (channels, x, y) of the images that a `DiffusionUNet` was made for."""
    config = getattr(network, "module", network).unet.config
    size = config["sample_size"]
    x, y = (size, size) if isinstance(size, int) else size
    return config["out_channels"], x, y
