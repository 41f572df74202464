"""Export a trained diffusion model as a diffusers pipeline, and read it back."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from tskd import ranks
from tskd.errors import TskdError
from tskd.files import atomic_folder, sha256, write_json
from tskd.handlers.ema import ema_weights
from tskd.state import save_weights
from tskd.synthesis.adapters import DiffusionUNet
from tskd.synthesis.training_record import NAME

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


def export_model(
    network: DiffusionUNet,
    scheduler: DDPMScheduler,
    models_dir: str | os.PathLike[str],
    ema: EMAModel | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write `pipeline/` (diffusers layout, safetensors) and `model.pt` (tensors only), from the averaged weights.

    Args:
        network: trained network, not wrapped for several processes; LoRA adapters are merged into its weights.
        scheduler: training schedule.
        models_dir: the bundle's `models` folder; both are replaced there.
        ema: average to ship; None ships the network's own weights.
        record: what it was trained on (`training_record`), for `pipeline/training.json`; None leaves that out.

    Of several processes, only the first writes.

    Returns:
        The folder `pipeline`, for `diffusers.DDPMPipeline.from_pretrained`. Images are x first, as the project's arrays
        are, so a picture of this pipeline is transposed: `SyntheticFolder` turns it.
    """
    pipeline_dir = Path(models_dir, "pipeline")
    if not ranks.is_first():
        return pipeline_dir
    if ema is not None:
        with ema_weights(ema, network):
            return export_model(network, scheduler, models_dir, None, record)
    unet: Any = network.unet
    if isinstance(unet, PeftModel):
        unet = copy.deepcopy(unet).cpu().merge_and_unload()  # a GPU may compute the product in TF32
    with atomic_folder(pipeline_dir) as draft:
        try:
            DDPMPipeline(unet, scheduler).save_pretrained(draft, safe_serialization=True)  # type: ignore[arg-type]
        except SafetensorError as error:  # so does its writer report a full disk
            raise OSError(error) from error
        if record is not None:
            write_json(draft / NAME, record)
    save_weights(DiffusionUNet(unet), Path(models_dir, "model.pt"))
    return pipeline_dir


def load_network(
    pipeline_dir: str | os.PathLike[str], amp_dtype: str | None = None, device: str | torch.device = "cpu"
) -> DiffusionUNet:
    """Load the network of an exported pipeline, in evaluation mode; its size comes from the pipeline, not a config.

    Its weights are channels last, which draws a quarter faster on a CPU.

    Raises:
        TskdError: no such pipeline, or weights that do not fit its config.
    """
    config = _config(pipeline_dir, "unet", "config.json")
    unet = UNet2DModel.from_config(config)
    try:
        unet.load_state_dict(load_file(Path(pipeline_dir, WEIGHTS)), strict=True)
    except (RuntimeError, OSError, SafetensorError) as error:
        raise TskdError(f"{Path(pipeline_dir, WEIGHTS)}: expected the weights of its config.json: {error}") from error
    network: Any = DiffusionUNet(unet, amp_dtype).to(device).eval()
    return network.to(memory_format=torch.channels_last)


def load_scheduler(pipeline_dir: str | os.PathLike[str]) -> DDPMScheduler:
    """Load the training schedule of an exported pipeline.

    Raises:
        TskdError: no such pipeline.
    """
    return DDPMScheduler.from_config(_config(pipeline_dir, "scheduler", "scheduler_config.json"))


def weights_sha256(pipeline_dir: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the pipeline's weight file: which model an image was sampled from.

    Raises:
        TskdError: no such pipeline.
    """
    _config(pipeline_dir, "unet", "config.json")
    return sha256(Path(pipeline_dir, WEIGHTS))


def _config(pipeline_dir: str | os.PathLike[str], part: str, name: str) -> dict:
    path = Path(pipeline_dir, part, name)
    if not path.is_file():
        raise TskdError(
            f"{path}: expected a trained diffusion model in diffusers' layout, found no such file. Train the bundle "
            "ddpm_synthesis first, or point pipeline_dir to a folder with unet/ and scheduler/."
        )
    return json.loads(path.read_text(encoding="utf-8"))
