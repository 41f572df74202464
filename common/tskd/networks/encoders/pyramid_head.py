"""A light decoder: an embedding pyramid to class logits of a quarter of the image's resolution."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8  # of the group normalisations


class PyramidHead(nn.Module):
    """Sum the levels at the finest one's resolution, double that until a stride of about 4, and classify.

    Args:
        channels: of each level, from high to low resolution.
        strides: of each level, in pixels of the image.
        num_classes: classes with the background.
        width: channels inside the head, a multiple of 8.

    Shape:
        levels B x C_i x h_i x w_i -> B x num_classes x H x W, H and W those of the finest level times `self.factor`.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[float], num_classes: int, width: int = 128) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        doublings = max(round(strides[0] / 4).bit_length() - 1, 0)  # 14 and 16: two, 4: none
        self.factor = 2**doublings
        self.upsample = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(width, width, 2, 2), nn.GroupNorm(GROUPS, width), nn.GELU())
            for _ in range(doublings)
        )
        self.smooth = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.GELU())
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map the levels to logits."""
        x = self.lateral[-1](levels[-1])
        for lateral, level in zip(self.lateral[-2::-1], levels[-2::-1], strict=True):
            finer = lateral(level)
            x = finer + F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
        for upsample in self.upsample:
            x = upsample(x)
        return self.classify(self.smooth(x))
