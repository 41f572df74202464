"""A foundation model's image encoder with a light head: one image in, one logit map a class out."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tskd.errors import TskdError
from tskd.networks.encoders.families import Family
from tskd.networks.encoders.pyramid_head import PyramidHead


class PyramidTeacher(nn.Module):
    """An encoder of `transformers` (its stock module and state dict) and a `PyramidHead`.

    It answers as `PromptFreeSam` does, so that fine-tuning, soft labels and evaluation take either.

    Args:
        vfm: name, folder or hub id of the encoder.
        family: how the encoder is used.
        image_encoder: the encoder.
        num_classes: classes with the background.
        image_size: side of the (square) training image in pixels.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, vfm: str, family: Family, image_encoder: Any, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.vfm, self.family = vfm, family
        self.image_size, self.num_classes = image_size, num_classes
        self.any_size = family.any_size
        strides = family.strides(image_encoder.config)
        self.stride = round(strides[-1])
        self.multiple = family.multiple(image_encoder.config)
        self._check_size(image_size, image_size)
        self.image_encoder = image_encoder
        self.head = PyramidHead(family.channels(image_encoder.config), strides, num_classes)
        self.register_buffer("pixel_mean", torch.tensor(family.scale.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(family.scale.std).view(1, 3, 1, 1), persistent=False)

    def _check_size(self, height: int, width: int) -> None:
        if height % self.multiple or width % self.multiple:
            near = max(round(width / self.multiple), 1) * self.multiple
            raise TskdError(
                f"{self.vfm}: the image size must be a multiple of {self.multiple}, found {height} x {width}; resize "
                f"the image, such as to image_size={near}"
            )
        if not self.any_size and (height, width) != (self.image_size, self.image_size):
            raise TskdError(
                f"{self.vfm}: built for images of {self.image_size} x {self.image_size}, found {height} x {width}; "
                "resize the image, or build the network with that image_size"
            )

    def pyramid(self, x: Tensor) -> tuple[Tensor, ...]:
        """Embeddings of images B x c x H x W in [0, 1] (c = 1 or 3), from high to low resolution.

        Raises:
            TskdError: a size or a number of channels that the encoder does not take.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise TskdError(f"{self.vfm}: expected images B x 1 x H x W or B x 3 x H x W, found {tuple(x.shape)}")
        self._check_size(*x.shape[-2:])
        return self.family.pyramid(self.image_encoder, (x.expand(-1, 3, -1, -1) - self.pixel_mean) / self.pixel_std)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Run encoder and head without upsampling.

        Args:
            x: images B x c x H x W in [0, 1], c = 1 (grey) or 3.

        Returns:
            `logits_low`: B x C x 4h x 4w; `embedding`: the lowest level, B x D x h x w.
        """
        levels = self.pyramid(x)
        return {"logits_low": self.head(levels), "embedding": levels[-1]}

    def forward(self, x: Tensor, low_resolution: bool = False) -> Tensor:
        """Map images B x c x H x W in [0, 1] to class logits B x C x H x W, or those of the head's own resolution."""
        logits = self.head(self.pyramid(x))
        if low_resolution:
            return logits
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the encoder's blocks in the backward pass: less memory, about a third more time."""
        for module in self.image_encoder.modules():
            if hasattr(module, "gradient_checkpointing") and hasattr(module, "_gradient_checkpointing_func"):
                module.gradient_checkpointing = enabled
                module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
