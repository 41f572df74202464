"""Load real images as tensors, cut and scaled as the preparers do it."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from tskd.data.datalist import entries, read
from tskd.data.hashing import volume_slices
from tskd.data.io.intensity import PERCENTILES, Intensity
from tskd.data.io.nifti import NIFTI, load_label, load_volume, to_lps
from tskd.errors import TskdError
from tskd.synthesis.contact_sheet import read_image
from tskd.synthesis.label_maps import read_labels


def load_images(
    items: Sequence[Mapping[str, str]],
    size: int | Sequence[int],
    channels: int = 1,
    limit: int | None = None,
    intensity: Intensity = PERCENTILES,
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Read 2-D images, and the slices of volumes, at one size.

    Args:
        items: {image, group, case} with absolute paths; PNG or JPEG, or NIfTI volumes.
        size: (x, y), or one number for both.
        channels: 1 (grey) or 3.
        limit: at most so many images, spread evenly over all; None means all.
        intensity: how volumes are scaled.

    Returns:
        Images N x channels x X x Y in [0, 1], their cases (`<case>_<slice>` for a volume) and their groups.

    Raises:
        TskdError: an image that cannot be read.
    """
    selected = None
    if limit is not None:
        selected = frozenset(evenly_spaced(sum(_count_slices(entry, intensity) for entry in items), limit))
    parts = list(image_batches(items, size, channels, intensity, numbers=selected))
    return (
        torch.cat([images for images, _, _ in parts]),
        [case for _, cases, _ in parts for case in cases],
        [group for _, _, groups in parts for group in groups],
    )


def image_batches(
    items: Sequence[Mapping[str, str]],
    size: int | Sequence[int],
    channels: int = 1,
    intensity: Intensity = PERCENTILES,
    count: int = 64,
    numbers: Container[int] | None = None,
) -> Iterator[tuple[torch.Tensor, list[str], list[str]]]:
    """Yield what `load_images` returns in batches of at most `count` images, to bound the memory.

    Args:
        items: as of `load_images`.
        size: as of `load_images`.
        channels: 1 (grey) or 3.
        intensity: how volumes are scaled.
        count: images of a portion.
        numbers: numbers of the images, counted over all items, that are wanted; None for all.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    pictures = ((entry, *picture) for entry in items for picture in _slices(entry, channels, intensity))
    resized = (
        (_resize(image, size), case, entry["group"])
        for number, (entry, case, image) in enumerate(pictures)
        if numbers is None or number in numbers
    )
    while part := list(islice(resized, count)):
        images, cases, groups = zip(*part, strict=True)
        yield torch.stack(images), list(cases), list(groups)


def validation_images(
    dataset_file: str | os.PathLike[str], size: int | Sequence[int], limit: int | None = None, labelled: bool = False
) -> list[dict[str, Any]]:
    """Return images of the validation list, volumes cut into slices, as {image, case, label?} for a MONAI Dataset.

    Args:
        dataset_file: path of dataset.json.
        size: (x, y), or one number for both.
        limit: at most so many, spread evenly.
        labelled: with their label maps 1 x X x Y (uint8), for a network that is conditioned on them.

    Raises:
        TskdError: an empty list, a limit below 1, or an image that cannot be read.
    """
    if limit is not None and limit < 1:
        raise TskdError(f"val_images: expected 1 or more, found {limit}")
    held_out, channels = entries(dataset_file, "validation"), read(dataset_file)["channels"]
    intensity = Intensity.of(dataset_file)
    images, cases, _ = load_images(held_out, size, channels, limit, intensity)
    images_with_cases: list[dict[str, Any]] = [
        {"image": image, "case": case} for image, case in zip(images, cases, strict=True)
    ]
    if labelled:
        labels = [label for entry in held_out for label in _label_maps(entry, size, intensity)]
        for item, k in zip(images_with_cases, evenly_spaced(len(labels), limit), strict=True):
            item["label"] = labels[k]
    return images_with_cases


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (x, y) of a PNG or JPEG image."""
    with Image.open(path) as picture:
        return picture.size


def _slices(entry: Mapping[str, str], channels: int, intensity: Intensity) -> Iterable[tuple[str, torch.Tensor]]:
    if entry["image"].endswith(NIFTI):
        for k, grey in volume_slices(entry["image"], intensity):
            image = torch.from_numpy(grey.astype(np.float32) / 255)
            yield f"{entry['case']}_{k:03d}", image.expand(channels, -1, -1)
        return
    try:
        yield entry["case"], read_image(entry["image"], channels)
    except OSError as error:
        raise TskdError(f"{entry['image']}: expected a PNG or JPEG image, found {error}. Prepare it again.") from error


def _count_slices(entry: Mapping[str, str], intensity: Intensity) -> int:
    """Return how many images `_slices` yields of an entry."""
    return sum(1 for _ in volume_slices(entry["image"], intensity)) if entry["image"].endswith(NIFTI) else 1


def _label_maps(entry: Mapping[str, str], size: int | Sequence[int], intensity: Intensity) -> list[torch.Tensor]:
    """Return label maps 1 x X x Y of one entry, in the order of `_slices`."""
    size = (size, size) if isinstance(size, int) else tuple(size)
    if not entry["image"].endswith(NIFTI):
        return [read_labels(entry["label"], size)]
    array, affine = load_volume(entry["image"])
    labels = torch.from_numpy(to_lps(load_label(entry["label"], array.shape, affine), affine)[0])
    slice_indices = [k for k, _ in volume_slices(entry["image"], intensity)]
    slices = labels.permute(2, 0, 1)[slice_indices][:, None].float()
    return list(functional.interpolate(slices, size, mode="nearest-exact").to(torch.uint8))


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """Return at most `limit` of 0 .. count - 1, evenly spaced."""
    return np.linspace(0, count - 1, count if limit is None else min(limit, count)).round().astype(int).tolist()


def _resize(image: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if tuple(image.shape[1:]) == size:
        return image.contiguous()
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
