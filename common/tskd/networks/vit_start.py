"""Initialise a vision transformer for medical images: standardised pixels, sine-cosine position embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.blocks.patchembedding import PatchEmbeddingBlock
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from torch import nn

from tskd.errors import TskdError

POSITION_STD = 0.5  # of the sine-cosine positions, that of the tokens of standardised images; MONAI starts with 0.02


@torch.no_grad()
def start_vit(
    network: nn.Module, mean: float | Sequence[float] | None, std: float | Sequence[float] = 1.0
) -> nn.Module:
    """Initialise the patch embeddings of a network with random weights for medical images, and return the network.

    In images in [0, 1] that are mostly dark, all patches are nearly one vector; with positions of 0.02 beside it the
    tokens of a ViT start alike, and its blocks make them more so. Here the images' statistics go into the weights (w /
    std, b - mean * sum(w) / std), so that the network, which stays the stock one, sees standardised images; and the
    positions, which are learned, start as the sine-cosine ones of the masked autoencoder (arXiv 2111.06377). A network
    without MONAI's convolutional patch embedding is left as it is.

    Args:
        network: network with random weights, on square images; changed in place.
        mean: mean of the pixels, one for all channels or one each; None changes nothing at all.
        std: their standard deviation, above 0.

    Raises:
        TskdError: a standard deviation that is not above 0, or another number of values than of channels.
    """
    if mean is None:
        return network
    for module in network.modules():
        if isinstance(module, PatchEmbeddingBlock) and isinstance(module.patch_embeddings, nn.Conv2d):
            _standardise(module.patch_embeddings, mean, std)
            side = math.isqrt(module.position_embeddings.shape[1])
            positions = build_sincos_position_embedding([side, side], module.position_embeddings.shape[2], 2)
            module.position_embeddings.copy_(positions * (POSITION_STD / positions.std()))
    return network


def _standardise(convolution: nn.Conv2d, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
    means, stds = (_per_channel(value, convolution.in_channels) for value in (mean, std))
    if (stds <= 0).any():
        raise TskdError(f"pixel_std: expected numbers above 0, found {std}")
    assert convolution.bias is not None
    convolution.weight /= stds
    convolution.bias -= (convolution.weight * means).flatten(1).sum(1)


def _per_channel(value: float | Sequence[float], channels: int) -> torch.Tensor:
    numbers = torch.as_tensor(value, dtype=torch.float32).flatten()
    if len(numbers) not in (1, channels):
        raise TskdError(f"pixel_mean, pixel_std: expected 1 or {channels} numbers, found {value}")
    return numbers.expand(channels)[None, :, None, None]
