"""A data set in memory that takes a quarter of the memory where images are as exact in 8 bits."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import CacheDataset
from torch import Tensor

KEY = "image"


class CompactCacheDataset(CacheDataset):
    """MONAI's `CacheDataset` that keeps images as uint8 where this loses nothing: files of 8 bits that are not resized.

    Items come out as they went in, bit by bit. The transforms are to be deterministic, as those of the bundles are,
    whose augmentation is a step of its own.

    Args:
        As of `CacheDataset`. An item's `image` is a float32 tensor in [0, 1].
    """

    def _load_cache_item(self, idx: int) -> Any:
        return pack(super()._load_cache_item(idx))

    def _transform(self, index: int) -> Any:
        return unpack(super()._transform(index))


def pack(item: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Return the item with its image as uint8, if `unpack` gives back the very same numbers."""
    image = item.get(KEY)
    if not (type(image) is Tensor and image.dtype == torch.float32):
        return dict(item)
    whole = (image * 255).round().clamp(0, 255).to(torch.uint8)
    return {**item, KEY: whole} if torch.equal(_floats(whole), image) else dict(item)


def unpack(item: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Return the item with its image as float32 in [0, 1]."""
    image = item.get(KEY)
    packed = type(image) is Tensor and image.dtype == torch.uint8
    return {**item, KEY: _floats(image)} if packed else dict(item)  # type: ignore[arg-type]


def _floats(image: Tensor) -> Tensor:
    return image.float() / 255
