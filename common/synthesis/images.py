"""Real images as tensors, cut and scaled as the preparers do it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from common.data.datalist import read
from common.data.volumes import NIFTI, load_volume, scale_intensity, to_lps
from common.errors import TskdError


def load_images(
    entries: Sequence[Mapping[str, str]],
    size: int | Sequence[int],
    channels: int = 1,
    limit: int | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Read 2-D images, and the slices of volumes, at one size.

    Args:
        entries: {image, group, case} with absolute paths; PNG or JPEG, or NIfTI volumes.
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
    for entry in entries:
        for case, image in _pictures(entry, channels, window):
            images.append(_resize(image, size))
            cases.append(case)
            groups.append(entry["group"])
    if limit is not None and len(images) > limit:
        kept = np.linspace(0, len(images) - 1, limit).round().astype(int)
        images, cases, groups = [[values[k] for k in kept] for values in (images, cases, groups)]
    return torch.stack(images), cases, groups


def image_entries(
    entries: Sequence[Mapping[str, str]],
    size: int | Sequence[int],
    channels: int = 1,
    limit: int | None = None,
    window: tuple[float, float] | None = None,
) -> list[dict[str, Any]]:
    """`load_images` as a list of {image, case} for a MONAI Dataset: the validation images of the diffusion model."""
    images, cases, _ = load_images(entries, size, channels, limit, window)
    return [{"image": image, "case": case} for image, case in zip(images, cases, strict=True)]


def intensity_window(dataset_file: str) -> tuple[float, float] | None:
    """The fixed intensity window that the volumes of a dataset.json are scaled with (`provenance`: `window`), or None."""
    window = read(dataset_file)["provenance"].get("window")
    return None if window is None else (float(window[0]), float(window[1]))


def _pictures(
    entry: Mapping[str, str], channels: int, window: tuple[float, float] | None
) -> Iterable[tuple[str, torch.Tensor]]:
    if entry["image"].endswith(NIFTI):
        volume = scale_intensity(to_lps(*load_volume(entry["image"]))[0], window=window)
        for k in range(volume.shape[2]):
            yield f"{entry['case']}_{k:03d}", torch.from_numpy(volume[:, :, k]).expand(channels, -1, -1)
        return
    try:
        with Image.open(entry["image"]) as picture:
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except OSError as error:
        raise TskdError(f"{entry['image']}: expected a PNG or JPEG image, found {error}. Prepare it again.") from error
    rows = torch.from_numpy(pixels.astype(np.float32) / 255)
    yield entry["case"], rows.T[None] if rows.ndim == 2 else rows.permute(2, 1, 0)


def _resize(image: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if tuple(image.shape[1:]) == size:
        return image.contiguous()
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
