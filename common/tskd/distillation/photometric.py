"""Random changes of a batch's intensities and colours; every image of the batch draws its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LOWEST_RESOLUTION = 0.4  # of the image's side


def uniform(image: Tensor, limit: float, channels: int = 1) -> Tensor:
    """Return B x channels x 1 x 1 draws from -`limit` to `limit`."""
    draws = torch.rand(len(image) * channels, device=image.device) * 2 - 1
    return (draws * limit).reshape(len(image), channels, 1, 1)


def chosen(image: Tensor, probability: float) -> Tensor:
    """Return B x 1 x 1 x 1 of ones, each with `probability`, and zeros."""
    return (torch.rand((len(image), 1, 1, 1), device=image.device) < probability).to(image.dtype)


def change_contrast(image: Tensor, limit: float) -> Tensor:
    """Stretch each channel about its mean by up to 1 + `limit`."""
    mean = image.mean((2, 3), keepdim=True)
    return mean + (image - mean) * (1 + uniform(image, limit))


def change_saturation(image: Tensor, limit: float) -> Tensor:
    """Move RGB away from or towards its grey by up to 1 + `limit`; one channel is left as it is."""
    if image.shape[1] != 3:
        return image
    grey = (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return grey + (image - grey) * (1 + uniform(image, limit))


def change_colour(image: Tensor, limit: float) -> Tensor:
    """Multiply each channel by a gain of its own, as another white balance does; one channel is left as it is."""
    return image * (1 + uniform(image, limit, 3)) if image.shape[1] == 3 else image


def lower_resolution(image: Tensor, probability: float) -> Tensor:
    """Sample some images down (nearest neighbour) and back up (bilinear), as nnU-Net does; one factor a batch."""
    factor = LOWEST_RESOLUTION + (1 - LOWEST_RESOLUTION) * float(torch.rand(()))
    size = [max(1, round(side * factor)) for side in image.shape[2:]]
    small = functional.interpolate(image, size=size, mode="nearest-exact")
    coarse = functional.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)
    mask = chosen(image, probability)
    return mask * coarse + (1 - mask) * image


def blurred(image: Tensor, kernel: Tensor) -> Tensor:
    """Blur an image by a separable kernel, its border repeated."""
    kernel = kernel.to(image.dtype)
    reach = len(kernel) // 2
    padded = functional.pad(image.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[None, None, :, None])
    return functional.conv2d(rows, kernel[None, None, None, :]).view(image.shape)
