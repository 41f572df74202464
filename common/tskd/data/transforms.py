"""MONAI's transforms as the bundles chain them: training images, validation volumes, predicted masks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CopyItemsd,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    KeepLargestConnectedComponentd,
    Lambdad,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
)

from tskd.data.antialias import AntialiasedResized
from tskd.data.neighbour_slices import NeighbourChannels
from tskd.errors import TskdError

MODES = {"image": "bilinear", "label": "nearest-exact"}
DTYPES = {"image": torch.float32, "label": torch.uint8}
Transform = Callable[[Mapping[Hashable, Any]], Any]


def image_transforms(
    keys: Sequence[str],
    image_size: int,
    allow_missing_keys: bool = False,
    resize_label: bool = True,
    track_meta: bool = False,
    then: Sequence[Transform] = (),
    first: Sequence[Transform] = (),
    neighbours: int = 0,
) -> Compose:
    """Read 8-bit images (PNG, JPEG) and their labels, as squares.

    Args:
        keys: of the datalist, "image" and "label" or one of them.
        image_size: side in pixels; images by bilinear interpolation with anti-aliasing, labels by nearest neighbour.
        allow_missing_keys: whether an entry may lack one of the keys.
        resize_label: whether the label is resized too; a validation compares at its own size.
        track_meta: whether results know their file and how they were resized.
        then: further transforms of the same chain.
        first: transforms before it, which may change the files that are read.
        neighbours: as of `volume_transforms`; 2-D images have none.

    Returns:
        A chain to image C x S x S, float32 in [0, 1], and label 1 x S x S, uint8.

    Raises:
        TskdError: neighbours of independent images.
    """
    if neighbours:
        raise TskdError(
            "neighbour_slices: expected volumes in the list that is validated or scored, found 2-D images, which have "
            f"no {neighbours} slices on each side. Leave out neighbours.json, or images_2d.json"
        )
    resized = [key for key in keys if resize_label or key == "image"]
    missing: dict[str, Any] = {"allow_missing_keys": allow_missing_keys}
    chain: list[Any] = [
        LoadImaged(keys, reader="PILReader", image_only=True, **missing),
        EnsureChannelFirstd(keys, **missing),
        ScaleIntensityRanged("image", a_min=0, a_max=255, b_min=0, b_max=1, clip=True),
        AntialiasedResized(resized, [image_size] * 2, mode=[MODES[key] for key in resized], **missing),
        EnsureTyped(keys, dtype=[DTYPES[key] for key in keys], track_meta=track_meta, **missing),
    ]
    return Compose([*first, *chain, *then])


def volume_transforms(image_size: int, scale_intensity: Transform, neighbours: int = 0) -> Compose:
    """Read volumes (NIfTI) and their labels for a validation slice by slice; inference.json has the same, in the open.

    Args:
        image_size: side in pixels of each slice of the image; the label keeps its own size.
        scale_intensity: transform of the key "image" to [0, 1].
        neighbours: slices on each side that become channels of each slice (2.5-D), or 0.

    Returns:
        A chain to image C x S x S x D, float32, in LPS order, and label 1 x X x Y x D, uint8, as it is stored; with
        neighbours the image has (2 neighbours + 1) x C channels (`NeighbourChannels`).
    """
    both = ["image", "label"]
    chain: list[Any] = [
        LoadImaged(both, image_only=True),
        EnsureChannelFirstd(both),
        Orientationd("image", axcodes="LPS"),
        scale_intensity,
        Lambdad("image", func=_clamp),
        AntialiasedResized("image", [image_size, image_size, -1], mode="trilinear"),
        EnsureTyped(both, dtype=[DTYPES[key] for key in both]),
        *([Lambdad("image", func=NeighbourChannels(neighbours))] if neighbours else []),
    ]
    return Compose(chain)


def mask_transforms(
    preprocessing: Compose, largest_component: Sequence[int] = (), keep_probabilities: bool = False
) -> Compose:
    """Turn logits (key "pred") into a mask on the grid of the file that the image came from.

    Args:
        preprocessing: what is undone.
        largest_component: classes of which only the largest connected component is kept.
        keep_probabilities: whether the softmax stays under the key "prob".

    Returns:
        A chain from pred classes x S x S (x D) to pred 1 x X x Y (x D).
    """
    probabilities = [CopyItemsd("pred", names="prob")] if keep_probabilities else []
    largest = [KeepLargestConnectedComponentd("pred", applied_labels=largest_component, is_onehot=False)]
    chain: list[Any] = [
        Activationsd("pred", softmax=True),
        Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True),
        *probabilities,
        AsDiscreted("pred", argmax=True),
        *(largest if largest_component else []),
    ]
    return Compose(chain)


def _clamp(image: torch.Tensor) -> torch.Tensor:
    return image.clamp(0, 1)
