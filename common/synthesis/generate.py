"""A whole synthetic dataset from one call."""

from __future__ import annotations

import os

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from tqdm import tqdm

from common.synthesis.adapters import DiffusionUNet
from common.synthesis.folder import SyntheticFolder
from common.synthesis.label_maps import WarpedLabels
from common.synthesis.sampling import SeededSampler, folder_settings


def generate(
    network: DiffusionUNet,
    scheduler: DDPMScheduler,
    output_dir: str | os.PathLike[str],
    dataset_file: str | os.PathLike[str],
    num_images: int,
    model: str,
    sampler: str = "dpmsolver++",
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world_size: int = 1,
    labels: WarpedLabels | None = None,
) -> SyntheticFolder:
    """Sample images into a folder; a second call goes on where the first stopped.

    It does what the bundle's inference.json does with an evaluator, without the memorisation gate: run
    `memorisation.gate` on the folder before the images are used.

    Args:
        network: trained network, with the averaged weights.
        scheduler: training schedule.
        output_dir: folder for images/, dataset.json and contact_sheet.png.
        dataset_file: dataset.json of the training images, for labels and licence.
        num_images: images 0 .. num_images - 1.
        model: what identifies the weights (`weights_sha256`).
        sampler: one of `sampling.SAMPLERS`.
        steps: denoising steps; None for the sampler's default.
        seed: seed of the set; image k depends on it and on k.
        batch_size: images asked for at a time; changes no image.
        device: where the network runs.
        rank: number of this process of `world_size` that share the work.
        world_size: number of processes.
        labels: label map of each number, for a network that is conditioned on one.

    Returns:
        The folder; `finish` has been called on it.

    Raises:
        TskdError: the folder holds images of another model, schedule, sampler, number of steps or seed, or of another
            kind of device or precision.
    """
    draw = SeededSampler(scheduler, sampler, steps, seed, labels=labels)
    settings = folder_settings(model, network, device, draw)
    folder = SyntheticFolder(output_dir, num_images, settings, rank, world_size, labels)
    network = network.to(device).eval()
    pending = folder.pending()
    with tqdm(total=len(pending), unit="image", desc="sampling", dynamic_ncols=True) as bar:
        for start in range(0, len(pending), batch_size):
            numbers = pending[start : start + batch_size]
            folder.write(numbers, draw(torch.tensor(numbers, device=device), network))
            bar.update(len(numbers))
    folder.finish(dataset_file)
    return folder
