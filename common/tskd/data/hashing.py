"""What an image shows, as a hash: the same picture under another name, or in another file, has the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tskd.data.datalist import read
from tskd.data.io.intensity import PERCENTILES, Intensity
from tskd.data.io.nifti import NIFTI, load_volume, to_lps
from tskd.errors import TskdError
from tskd.file_content import opened


def content_hashes(path: str | os.PathLike[str], intensity: Intensity = PERCENTILES) -> Iterator[str]:
    """Return SHA-256 of an image's size and pixels, or of every slice of a volume as its preparation would write it.

    Grey and colour files of one 8-bit picture agree; of more bits, the stored numbers count.

    Args:
        path: PNG, JPEG or NIfTI file.
        intensity: how volumes are scaled.

    Raises:
        TskdError: a file that cannot be read.
    """
    if str(path).endswith(NIFTI):
        for _, grey in volume_slices(path, intensity):
            yield _hash(Image.fromarray(np.ascontiguousarray(grey.T)))
        return
    try:
        with Image.open(opened(path)) as picture:
            yield _hash(picture)
    except OSError as error:
        raise TskdError(f"{path}: expected a PNG or JPEG image, found {error}. Prepare the data again.") from error


def held_out_contents(dataset_file: str | os.PathLike[str]) -> dict[str, str]:
    """Return content hash -> what it is, of every image of `validation` and `test`, and of their volumes' slices."""
    data, folder, intensity = read(dataset_file), Path(dataset_file).resolve().parent, Intensity.of(dataset_file)
    return {
        content: f"{folder / entry['image']} (in '{name}')"
        for name in ("validation", "test")
        for entry in data[name]
        for content in content_hashes(folder / entry["image"], intensity)
    }


def volume_slices(path: str | os.PathLike[str], intensity: Intensity = PERCENTILES) -> Iterator[tuple[int, np.ndarray]]:
    """Return the slices of a volume as `tskd prepare` stores them: (k, uint8 [X, Y]).

    Args:
        path: NIfTI file.
        intensity: how it is scaled.

    Yields:
        Slices in LPS order; those with one grey everywhere (padding) are left out, as the preparers do.
    """
    volume = np.rint(intensity.scale(to_lps(*load_volume(path))[0]) * 255).astype(np.uint8)
    for k in range(volume.shape[2]):
        if volume[:, :, k].min() < volume[:, :, k].max():
            yield k, volume[:, :, k]


def _hash(picture: Image.Image) -> str:
    pixels = np.asarray(picture)
    content = picture.convert("RGB").tobytes() if pixels.dtype.itemsize == 1 else pixels.tobytes()
    return hashlib.sha256(str(picture.size).encode() + content).hexdigest()
