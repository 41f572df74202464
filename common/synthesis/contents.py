"""What an image shows, as a hash: the same picture under another name, or in another file, has the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image

from common.data.volumes import NIFTI
from common.errors import TskdError
from common.synthesis.images import volume_slices


def content_hashes(path: str | os.PathLike[str], window: tuple[float, float] | None = None) -> Iterator[str]:
    """SHA-256 of an image's size and pixels, or of every slice of a volume as its preparation would write it.

    Grey and colour files of one 8-bit picture agree; of more bits, the stored numbers count.

    Args:
        path: PNG, JPEG or NIfTI file.
        window: fixed intensity window of volumes (CT); None takes each volume's percentiles.

    Raises:
        TskdError: a file that cannot be read.
    """
    if str(path).endswith(NIFTI):
        for _, grey in volume_slices(path, window):
            yield _hash(Image.fromarray(np.ascontiguousarray(grey.T)))
        return
    try:
        with Image.open(path) as picture:
            yield _hash(picture)
    except OSError as error:
        raise TskdError(f"{path}: expected a PNG or JPEG image, found {error}. Prepare the data again.") from error


def _hash(picture: Image.Image) -> str:
    pixels = np.asarray(picture)
    content = picture.convert("RGB").tobytes() if pixels.dtype.itemsize == 1 else pixels.tobytes()
    return hashlib.sha256(str(picture.size).encode() + content).hexdigest()
