"""Real images as tensors, cut and scaled as the preparers do it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from common.data.datalist import entries, read
from common.data.volumes import NIFTI, load_volume, scale_intensity, to_lps
from common.errors import TskdError
from common.synthesis.pictures import read_image


def load_images(
    items: Sequence[Mapping[str, str]],
    size: int | Sequence[int],
    channels: int = 1,
    limit: int | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Read 2-D images, and the slices of volumes, at one size.

    Args:
        items: {image, group, case} with absolute paths; PNG or JPEG, or NIfTI volumes.
        size: (x, y), or one number for both.
        channels: 1 (grey) or 3.
        limit: at most so many images, spread evenly over all; None means all.
        window: fixed intensity window of volumes (CT); None takes each volume's percentiles.

    Returns:
        Images N x channels x X x Y in [0, 1], their cases (`<case>_<slice>` for a volume) and their groups.

    Raises:
        TskdError: an image that cannot be read.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    images, cases, groups = [], [], []
    for entry in items:
        for case, image in _pictures(entry, channels, window):
            images.append(_resize(image, size))
            cases.append(case)
            groups.append(entry["group"])
    if limit is not None and len(images) > limit:
        kept = np.linspace(0, len(images) - 1, limit).round().astype(int)
        images, cases, groups = [[values[k] for k in kept] for values in (images, cases, groups)]
    return torch.stack(images), cases, groups


def validation_images(
    dataset_file: str | os.PathLike[str], size: int | Sequence[int], limit: int | None = None
) -> list[dict[str, Any]]:
    """Images of the validation list, volumes cut into slices, as {image, case} for a MONAI Dataset.

    Args:
        dataset_file: path of dataset.json.
        size: (x, y), or one number for both.
        limit: at most so many, spread evenly.
    """
    held_out, channels = entries(dataset_file, "validation"), read(dataset_file)["channels"]
    images, cases, _ = load_images(held_out, size, channels, limit, intensity_window(dataset_file))
    return [{"image": image, "case": case} for image, case in zip(images, cases, strict=True)]


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(x, y) of a PNG or JPEG image."""
    with Image.open(path) as picture:
        return picture.size


def intensity_window(dataset_file: str | os.PathLike[str]) -> tuple[float, float] | None:
    """The fixed window that the preparer scaled the volumes of a dataset.json with, None for percentiles.

    It is read from `provenance`, key `scaling`, where `tskd prepare` writes "window [low, high] to [0, 1]".
    """
    number = r"(-?[\d.]+)"
    found = re.search(rf"window \[{number}, {number}\]", str(read(dataset_file)["provenance"].get("scaling", "")))
    return None if found is None else (float(found[1]), float(found[2]))


def _pictures(
    entry: Mapping[str, str], channels: int, window: tuple[float, float] | None
) -> Iterable[tuple[str, torch.Tensor]]:
    if entry["image"].endswith(NIFTI):
        volume = scale_intensity(to_lps(*load_volume(entry["image"]))[0], window=window)
        for k in range(volume.shape[2]):
            yield f"{entry['case']}_{k:03d}", torch.from_numpy(volume[:, :, k]).expand(channels, -1, -1)
        return
    try:
        yield entry["case"], read_image(entry["image"], channels)
    except OSError as error:
        raise TskdError(f"{entry['image']}: expected a PNG or JPEG image, found {error}. Prepare it again.") from error


def _resize(image: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if tuple(image.shape[1:]) == size:
        return image.contiguous()
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
