"""Start from a pretrained diffusers pipeline instead of from noise: all weights, or LoRA on the attention."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft import LoraConfig, get_peft_model
from torch import nn

from tskd.errors import TskdError
from tskd.files import sha256
from tskd.synthesis.adapters import DiffusionUNet

logger = logging.getLogger(__name__)

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]  # linear layers of diffusers' Attention


def initial_network(
    network: DiffusionUNet,
    scheduler: DDPMScheduler,
    init_from: str | os.PathLike[str] | None = None,
    lora_rank: int | None = None,
) -> DiffusionUNet:
    """Return the network that a training starts with.

    Architecture and weights are those of the pretrained pipeline; image size, channels and `amp_dtype` are the
    config's. The first and last layer are fitted to other channels: grey images stand for colours that are equal, and a
    label map begins without effect (zeros). Convolution and attention take any image size.

    Args:
        network: network of the config, with random weights; changed in place, or left as it is without `init_from`.
        scheduler: training schedule of the config.
        init_from: folder of a diffusers pipeline, with `unet/` and `scheduler/` or all in one folder.
        lora_rank: None trains all weights; a number freezes them and trains LoRA of that rank (arXiv 2106.09685, alpha
            equal to the rank) on the attention's projections, and the first and last layer where they were fitted.

    Raises:
        TskdError: no such pipeline, another noise schedule than the config's, channels that cannot be fitted, no
            attention, or a rank without a pipeline.
    """
    if init_from is None:
        if lora_rank is not None:
            raise TskdError(f"lora_rank: expected None without init_from, found {lora_rank}. Adapters need a network.")
        return network
    unet, schedule = _load_pipeline(init_from)
    _check_schedule(schedule, scheduler, init_from)
    config = network.unet.config
    fitted = _fit_channels(unet, config["in_channels"], config["out_channels"], init_from)
    unet.register_to_config(sample_size=config["sample_size"])
    unet.train()
    if lora_rank is not None:
        unet = _with_lora(unet, lora_rank, fitted, init_from)
    trained = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    logger.info(
        "%s: %d of %d parameters are trained%s",
        init_from,
        trained,
        sum(p.numel() for p in unet.parameters()),
        f"; fitted to other channels: {', '.join(fitted)}" if fitted else "",
    )
    network.unet = unet
    return network


def start_sha256(init_from: str | os.PathLike[str] | None) -> str | None:
    """Return the SHA-256 of the weights of the pipeline that a training begins with; None without one."""
    if init_from is None:
        return None
    unet_dir = Path(init_from, "unet") if Path(init_from, "unet").is_dir() else Path(init_from)
    return ",".join(sha256(file) for file in sorted(unet_dir.glob("*.safetensors")) + sorted(unet_dir.glob("*.bin")))


def _load_pipeline(folder: str | os.PathLike[str]) -> tuple[UNet2DModel, DDPMScheduler]:
    """Load UNet and noise schedule of a folder that `DDPMPipeline.from_pretrained` takes."""
    expected = (
        f"init_from: expected in {folder} a pipeline that diffusers.DDPMPipeline.from_pretrained loads: a UNet2DModel "
        "with its weights, and a schedule (in unet/ and scheduler/, or all in one folder)"
    )
    unet_dir = Path(folder, "unet") if Path(folder, "unet").is_dir() else Path(folder)
    try:
        unet, loading_info = UNet2DModel.from_pretrained(
            str(unet_dir), local_files_only=True, output_loading_info=True, low_cpu_mem_usage=False
        )
        pipeline: Any = DDPMPipeline.from_pretrained(str(folder), unet=unet, local_files_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise TskdError(f"{expected}; found: {error}. Give a folder that one of its trainings has written.") from error
    if wrong := [f"{kind} {', '.join(map(str, names[:4]))}" for kind, names in loading_info.items() if names]:
        raise TskdError(
            f"{expected}; found in {unet_dir} other weights than those of its config.json: {'; '.join(wrong)}."
        )
    return unet, DDPMScheduler.from_config(pipeline.scheduler.config)


def _check_schedule(pretrained: DDPMScheduler, expected: DDPMScheduler, folder: str | os.PathLike[str]) -> None:
    same = pretrained.betas.shape == expected.betas.shape and torch.allclose(pretrained.betas, expected.betas)
    if same and pretrained.config["prediction_type"] == expected.config["prediction_type"]:
        return
    keys = ("prediction_type", "beta_schedule", "beta_start", "beta_end", "num_train_timesteps")
    differing = [f"{k}: expected {expected.config[k]}, found {pretrained.config[k]}" for k in keys]
    raise TskdError(
        f"{Path(folder, 'scheduler')}: expected the noise schedule of this config, for a network knows no other; "
        f"{'; '.join(differing)}. Pass --prediction_type {pretrained.config['prediction_type']} --beta_schedule "
        f"{pretrained.config['beta_schedule']}, and what else differs under --scheduler#."
    )


def _fit_channels(unet: Any, inputs: int, outputs: int, folder: str | os.PathLike[str]) -> list[str]:
    """Fit the first and last convolution in place; return the names of those that changed."""
    had_in, had_out = unet.config["in_channels"], unet.config["out_channels"]
    maps, had_maps = inputs - outputs, had_in - had_out
    if not (outputs == had_out or {outputs, had_out} == {1, 3}) or had_maps not in (0, maps):
        raise TskdError(
            f"{Path(folder, 'unet')}: expected images of 1 or 3 channels and label maps of {maps} classes or none, "
            f"found {had_out} channels out and {had_in} in. Choose another pipeline, or change in_channels."
        )
    fitted = []
    if inputs != had_in:
        weight = unet.conv_in.weight.data
        image, labels = weight[:, :had_out], weight[:, had_out:]
        if outputs < had_out:
            image = image.sum(1, keepdim=True)
        elif outputs > had_out:
            image = image.expand(-1, outputs, -1, -1) / outputs
        if not had_maps:
            labels = weight.new_zeros(len(weight), maps, *weight.shape[2:])
        unet.conv_in = _convolution(unet.conv_in, torch.cat([image, labels], dim=1), unet.conv_in.bias)
        fitted.append("conv_in")
    if outputs != had_out:
        weight, bias = unet.conv_out.weight.data, unet.conv_out.bias.data
        grey = outputs < had_out
        weight = weight.mean(0, keepdim=True) if grey else weight.expand(outputs, -1, -1, -1)
        unet.conv_out = _convolution(
            unet.conv_out, weight, bias.mean(0, keepdim=True) if grey else bias.expand(outputs)
        )
        fitted.append("conv_out")
    unet.register_to_config(in_channels=inputs, out_channels=outputs)
    return fitted


def _convolution(old: Any, weight: torch.Tensor, bias: torch.Tensor) -> nn.Conv2d:
    new: Any = nn.Conv2d(weight.shape[1], weight.shape[0], old.kernel_size, padding=old.padding)
    new.weight.data.copy_(weight)
    new.bias.data.copy_(bias)
    return new


def _with_lora(unet: Any, rank: int, fitted: list[str], folder: str | os.PathLike[str]) -> Any:
    try:
        adapted = get_peft_model(unet, LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION))
    except ValueError as error:
        raise TskdError(
            f"{Path(folder, 'unet')}: expected attention with {', '.join(ATTENTION)} and a rank of at least 1, found: "
            f"{error}. Leave lora_rank out to train all weights."
        ) from error
    for name in fitted:
        unet.get_submodule(name).requires_grad_(True)
    return adapted
