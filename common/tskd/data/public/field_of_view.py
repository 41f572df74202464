"""The field of view of a fundus camera: the bright disc in the dark frame."""

import numpy as np
from scipy import ndimage

from tskd.errors import TskdError

DARK = 15  # brightest channel of the frame; JPEG ripples at the rim reach about 10


def field_of_view(image: np.ndarray) -> np.ndarray:
    """Return the largest connected region whose brightest channel is above 15 of 255, its holes filled.

    Args:
        image: uint8 [rows, columns, 3] or [rows, columns].

    Returns:
        bool [rows, columns].

    Raises:
        TskdError: the region covers less than a quarter of the image.
    """
    brightest = image if image.ndim == 2 else image.max(axis=2)
    regions, _ = ndimage.label(brightest > DARK)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    inside = ndimage.binary_fill_holes(regions == sizes.argmax()) if sizes.any() else np.zeros(brightest.shape, bool)
    if inside.mean() < 0.25:
        raise TskdError(
            f"field of view: expected a bright disc that covers at least a quarter of the image, found "
            f"{inside.mean():.0%}. Leave the image out."
        )
    return inside
