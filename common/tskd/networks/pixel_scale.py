"""The normalisation that an encoder was pretrained with."""

from typing import NamedTuple


class PixelScale(NamedTuple):
    """Normalisation that the encoder was pretrained with, of intensities in [0, 1], one value a colour."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = PixelScale((123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255))
UNIT = PixelScale((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # [0, 1] as it is
HALF = PixelScale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
