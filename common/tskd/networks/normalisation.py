"""Whether a network's normalisations have something to normalise, found out before the data are read."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from tskd.errors import TskdError, user_message


@torch.no_grad()
def check_normalisation(network: nn.Module, batch_size: int, image_size: int, in_channels: int = 1) -> None:
    """Run a network in training mode on a blank batch, where a normalisation may have a single value a channel left.

    That is so for batch norm with one small image a batch, and for instance norm with small images. Nothing is run
    where it cannot be. The network and torch's random numbers are left as they were.

    Args:
        network: takes images B x C x H x W.
        batch_size: B in training, for each process.
        image_size: H and W in pixels.
        in_channels: C.

    Raises:
        TskdError: there is one value.
    """
    kinds: tuple[type[nn.Module], ...] = (_BatchNorm, _InstanceNorm) if batch_size == 1 else (_InstanceNorm,)
    if not any(isinstance(module, kinds) for module in network.modules()):
        return
    device = next(network.parameters()).device
    training = {module: module.training for module in network.modules()}
    before = {name: value.clone() for name, value in network.named_buffers()}
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            network.train()(torch.zeros(1, in_channels, image_size, image_size, device=device))
    except Exception as error:
        message = user_message(error) or ""
        if message.startswith("batch_size"):
            raise TskdError(message) from error  # anything else is for the training to say
    finally:
        for name, value in network.named_buffers():
            value.copy_(before[name])
        for module, mode in training.items():
            module.training = mode
