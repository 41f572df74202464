"""Images with their structures tinted, one colour a structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tskd.data.datalist import IGNORE

# told apart by colour-blind readers too (Okabe and Ito); then again from the first
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def colour(structure: int) -> str:
    """Return the colour of a class index from 1 on."""
    return COLOURS[(structure - 1) % len(COLOURS)]


def blend(image: NDArray, label: NDArray, strength: float = 0.35, limits: tuple[float, float] | None = None) -> NDArray:
    """Return an image [H, W] or [H, W, 3] with its structures tinted and outlined, as [H, W, 3] in [0, 1].

    Args:
        image: intensities of any scale.
        label: class indices [H, W].
        strength: share of the tint inside a structure; its outline has the full colour.
        limits: intensities that are black and white; None takes the percentiles 0.5 and 99.5 of the image.
    """
    low, high = np.percentile(image, [0.5, 99.5]) if limits is None else limits
    scaled = np.clip((image.astype(float) - low) / max(high - low, 1e-6), 0, 1)
    picture = scaled[..., :3] if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)
    picture = picture.copy()
    for value in np.unique(label[(label > 0) & (label != IGNORE)]):
        mask = label == value
        tint = np.array([int(colour(int(value))[k : k + 2], 16) / 255 for k in (1, 3, 5)])
        picture[mask] = (1 - strength) * picture[mask] + strength * tint
        inner = mask.copy()
        for axis in (0, 1):
            for shift in (1, -1):
                inner &= np.roll(mask, shift, axis)
        picture[mask & ~inner] = tint
    return picture
