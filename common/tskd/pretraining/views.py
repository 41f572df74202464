"""Random views of a batch of images on its device: crop, mirror, intensity, blur."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor, nn
from torch.nn import functional


class RandomView(nn.Module):
    """Random resized crop, mirror image, brightness and contrast, Gaussian blur; every item draws its own.

    The augmentation of masked autoencoders (arXiv 2111.06377: crop and mirror only) and of contrastive learning (arXiv
    2104.02057, after SimCLR) as far as it makes sense for grey images. Draws come from torch's global generator.

    Args:
        min_area: smallest area of the crop as a fraction of the image; the largest is 1. The ratio of its sides is
            drawn from 3/4 to 4/3, as far as it fits.
        flip: probability of a mirror image along the first axis (x). 0 where left and right organs differ.
        jitter: largest relative change of brightness and of contrast.
        jitter_probability: share of the views that change so.
        blur: probability of a Gaussian blur.
        max_sigma: largest standard deviation of the blur in pixels, the smallest is 0.1.

    Shape:
        B x C x H x W in [0, 1], in and out.
    """

    def __init__(
        self,
        min_area: float = 0.2,
        flip: float = 0.0,
        jitter: float = 0.4,
        jitter_probability: float = 0.8,
        blur: float = 0.5,
        max_sigma: float = 1.2,
    ) -> None:
        super().__init__()
        self.min_area, self.flip, self.blur, self.max_sigma = min_area, flip, blur, max_sigma
        self.jitter, self.jitter_probability = jitter, jitter_probability

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return one view of each image."""
        grid = functional.affine_grid(self._crop(image), list(image.shape), align_corners=False)
        view = functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
        if self.jitter > 0:
            view = self._jitter(view)
        if self.blur > 0:
            chosen = torch.rand(len(view), 1, 1, 1, device=view.device) < self.blur
            view = torch.where(chosen, self._blur(view), view)
        return view

    def _crop(self, image: Tensor) -> Tensor:
        """Return B x 2 x 3 matrices from output to input coordinates, both in [-1, 1]."""
        draws = torch.rand(5, len(image), device=image.device)
        area = self.min_area + draws[0] * (1 - self.min_area)
        limit = (-area.log()).clamp(max=math.log(4 / 3))  # a larger ratio would not fit into the image
        stretch = torch.exp((draws[1] * 2 - 1) * limit / 2)
        width, height = area.sqrt() * stretch, area.sqrt() / stretch
        left, top = (draws[2] * 2 - 1) * (1 - width), (draws[3] * 2 - 1) * (1 - height)
        mirror = 1 - 2 * (draws[4] < self.flip).to(height)  # affine_grid's second coordinate is the first axis
        zero = torch.zeros_like(area)
        return torch.stack([width, zero, left, zero, height * mirror, top], dim=1).reshape(-1, 2, 3)

    def _jitter(self, view: Tensor) -> Tensor:
        draws = torch.rand(3, len(view), 1, 1, 1, device=view.device)
        brightness, contrast = 1 + (draws[:2] * 2 - 1) * self.jitter
        changed = view * brightness
        mean = changed.mean((1, 2, 3), keepdim=True)
        changed = ((changed - mean) * contrast + mean).clamp(0, 1)
        return torch.where(draws[2] < self.jitter_probability, changed, view)

    def _blur(self, view: Tensor) -> Tensor:
        """Blur each image with its own sigma: one separable filter a group of the convolution."""
        count, channels = view.shape[:2]
        radius = math.ceil(3 * self.max_sigma)
        sigma = 0.1 + torch.rand(count, 1, device=view.device) * (self.max_sigma - 0.1)
        kernel = torch.exp(-(torch.arange(-radius, radius + 1, device=view.device) ** 2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(view)
        flat = functional.pad(view.flatten(0, 1)[None], [radius] * 4, mode="replicate")
        flat = functional.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
        flat = functional.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
        return flat.reshape(view.shape)


class ViewsBatch(PrepareBatch):
    """Training batch without labels, a `prepare_batch` of a MONAI engine: views of the images, also as the target.

    Args:
        augmentation: from B x C x H x W to a random view of each.
        views: how many of each image; they follow one another along the batch (all first views, then all second).
    """

    def __init__(self, augmentation: nn.Module, views: int = 1) -> None:
        self.augmentation = augmentation
        self.views = views

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return the views twice, as input and as target: (views * B) x C x H x W on `device`."""
        image = batchdata["image"]
        image = image.as_tensor() if hasattr(image, "as_tensor") else image
        image = image.to(device, non_blocking=non_blocking, **kwargs)
        views = torch.cat([self.augmentation(image) for _ in range(self.views)])
        return views, views
