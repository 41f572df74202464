"""What a student is before its first step: its start, its weights, and what of it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from tskd.errors import TskdError
from tskd.networks.layer_groups import batch_norm_momentum, frozen
from tskd.networks.vit_start import start_vit
from tskd.state import load_weights


def configured(
    network: nn.Module,
    pixel_mean: float | Sequence[float] | None,
    pixel_std: float | Sequence[float],
    momentum: float | None,
) -> nn.Module:
    """Return a network with random weights as it starts: `batch_norm_momentum`, then `start_vit`.

    Args:
        network: changed in place.
        pixel_mean: of the images in [0, 1], one number or one a channel; None leaves a ViT's start to MONAI.
        pixel_std: their standard deviation.
        momentum: of all batch norms; None leaves the network's own.

    Raises:
        TskdError: a value out of its range.
    """
    return start_vit(batch_norm_momentum(network, momentum), pixel_mean, pixel_std)


def initialised(network: nn.Module, init_weights: str | Path | None, freeze: Sequence[str]) -> nn.Module:
    """Return the network with the weights of a file, if there is one, and without gradients in the frozen modules.

    Args:
        network: changed in place.
        init_weights: a state dict, loaded strictly; None leaves the weights.
        freeze: modules by name, each standing for all below it.

    Raises:
        TskdError: weights that do not fit, an unknown module, or nothing left to train.
    """
    return frozen(load_weights(network, init_weights) if init_weights else network, freeze)


def on_device(network: nn.Module, device: str | torch.device, memory_format: str = "channels_last") -> nn.Module:
    """Return the network on a device, its 2-D or 3-D convolutions laid out in memory as `memory_format` says.

    Args:
        network: changed in place.
        device: of torch.
        memory_format: channels_last, or contiguous_format; the results differ by rounding only.

    Raises:
        TskdError: another layout.
    """
    volumes = any(parameter.ndim == 5 for parameter in network.parameters())
    formats = {
        "channels_last": torch.channels_last_3d if volumes else torch.channels_last,
        "contiguous_format": torch.contiguous_format,
    }
    if memory_format not in formats:
        raise TskdError(f"memory_format: expected {' or '.join(formats)}, found {memory_format!r}")
    return network.to(device, memory_format=formats[memory_format])  # type: ignore[call-overload]
