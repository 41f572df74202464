"""What an image shows, as a hash: the same picture under another name, or in another file, has the same."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.datalist import read
from common.data.volumes import NIFTI, load_volume, scale_intensity, to_lps
from common.errors import TskdError


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


def held_out_contents(dataset_file: str | os.PathLike[str]) -> dict[str, str]:
    """Content hash of every image of `validation` and `test`, and of every slice of their volumes -> what it is."""
    data, folder, window = read(dataset_file), Path(dataset_file).resolve().parent, intensity_window(dataset_file)
    return {
        content: f"{folder / entry['image']} (in '{name}')"
        for name in ("validation", "test")
        for entry in data[name]
        for content in content_hashes(folder / entry["image"], window)
    }


def volume_slices(
    path: str | os.PathLike[str], window: tuple[float, float] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """The slices of a volume as `tskd prepare` stores them: (k, uint8 [X, Y]).

    Args:
        path: NIfTI file.
        window: fixed intensity window (CT); None takes the volume's percentiles.

    Yields:
        Slices in LPS order; those with one grey everywhere (padding) are left out, as the preparers do.
    """
    volume = np.rint(scale_intensity(to_lps(*load_volume(path))[0], window=window) * 255).astype(np.uint8)
    for k in range(volume.shape[2]):
        if volume[:, :, k].min() < volume[:, :, k].max():
            yield k, volume[:, :, k]


def intensity_window(dataset_file: str | os.PathLike[str]) -> tuple[float, float] | None:
    """The fixed window that the preparer scaled the volumes of a dataset.json with, None for percentiles.

    It is read from `provenance`, key `scaling`, where `tskd prepare` writes "window [low, high] to [0, 1]".
    """
    number = r"(-?[\d.]+)"
    found = re.search(rf"window \[{number}, {number}\]", str(read(dataset_file)["provenance"].get("scaling", "")))
    return None if found is None else (float(found[1]), float(found[2]))


def _hash(picture: Image.Image) -> str:
    pixels = np.asarray(picture)
    content = picture.convert("RGB").tobytes() if pixels.dtype.itemsize == 1 else pixels.tobytes()
    return hashlib.sha256(str(picture.size).encode() + content).hexdigest()
