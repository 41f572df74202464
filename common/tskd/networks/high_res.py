"""Features of the image's own resolution for a mask decoder that answers at a quarter of it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8  # of the group normalisations


class HighResFeatures(nn.Module):
    """Bring the mask decoder's pixel features to the image's resolution, with what two convolutions see in the image.

    SAM answers at a quarter of the image's side, on which thin vessels are less than a pixel. HQ-SAM (arXiv 2306.01567)
    and SAM 2 (arXiv 2408.00714) give the decoder early features of the encoder; here they come from the image, so that
    every encoder can have them. The last convolutions start at zero: an untrained network answers as without them,
    upsampled.

    Args:
        channels: of the decoder's pixel features, 32 in SAM.
        width: channels of the image's features at full resolution, a multiple of 8; twice as many at half of it.

    Shape:
        pixels B x channels x H/4 x W/4 and image B x 3 x H x W -> B x channels x H x W.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.GELU())
        self.down = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, 2 * width), nn.GELU()
        )
        self.mix_half = _mix(channels + 2 * width, 2 * width, channels)
        self.mix_full = _mix(channels + width, width, channels)

    def forward(self, pixels: Tensor, image: Tensor) -> Tensor:
        """Return the pixel features at the image's resolution."""
        full = self.stem(image)
        half = self.down(full)
        half = self.mix_half(torch.cat([_resized(pixels, half), half], dim=1))
        pixels = _resized(pixels, full) + _resized(half, full)
        return pixels + self.mix_full(torch.cat([pixels, full], dim=1))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _mix(in_channels: int, width: int, out_channels: int) -> nn.Sequential:
    """Return two convolutions, of which the last starts at zero."""
    last = nn.Conv2d(width, out_channels, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.GELU(), last)
