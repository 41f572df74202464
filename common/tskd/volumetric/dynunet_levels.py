"""Kernels and strides of a 3-D U-Net for voxels that are longer along z, after nnU-Net's rule."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from tskd.data import entries
from tskd.errors import TskdError

SMALLEST = 8  # voxels of an axis that is still halved
MOST = 2  # an axis whose voxels are longer than this many of the shortest is left alone


def dynunet_levels(patch_size: Sequence[int], anisotropy: float, most: int = 5) -> dict[str, list[list[int]]]:
    """Return kernels and strides of MONAI's DynUNet, level by level from the full resolution on.

    After nnU-Net (arXiv 1904.08128): an axis whose voxels are more than twice as long as the shortest (of the axes that
    can still be halved) has kernels of 1 and is not halved, until halving the others has made up for it. In nnU-Net
    itself twice as long is too long already, kernels look at all axes, and those of the last level are always 3.

    Args:
        patch_size: voxels along x, y and z.
        anisotropy: distance of slices in pixels, above 0.
        most: levels at most.

    Returns:
        {"kernels": [[3, 3, 1], ...], "strides": [[1, 1, 1], [2, 2, 1], ...]}

    Raises:
        TskdError: an anisotropy or patch that is none, a patch so small that fewer than three levels are left, or one
            that the strides do not divide.
    """
    if len(patch_size) != 3 or anisotropy <= 0:
        raise TskdError(
            f"patch_size, anisotropy: expected three numbers of voxels and a number above 0, found {list(patch_size)} "
            f"and {anisotropy}"
        )
    size, spacing = list(patch_size), [1.0, 1.0, float(anisotropy)]
    kernels: list[list[int]] = []
    strides = [[1, 1, 1]]
    while True:
        halved = [axis for axis in range(3) if size[axis] >= SMALLEST]
        shortest = min((spacing[axis] for axis in halved), default=min(spacing))
        near = [length <= MOST * shortest for length in spacing]
        # once an axis is looked along, it stays so
        kernels.append(
            [3 if fits or before == 3 else 1 for fits, before in zip(near, (kernels or [[1] * 3])[-1], strict=True)]
        )
        stride = [2 if axis in halved and near[axis] else 1 for axis in range(3)]
        if max(stride) == 1 or len(strides) == most:
            break
        strides.append(stride)
        size = [side // step for side, step in zip(size, stride, strict=True)]
        spacing = [length * step for length, step in zip(spacing, stride, strict=True)]
    total = np.prod(strides, axis=0)
    if len(strides) < 3 or any(side % step for side, step in zip(patch_size, total, strict=True)):
        raise TskdError(
            f"patch_size: expected sides that are multiples of {total.tolist()} and give at least three levels (of at "
            f"least {SMALLEST} voxels each), found {list(patch_size)}"
        )
    return {"kernels": kernels, "strides": strides}


def anisotropy(dataset_file: str | os.PathLike[str], image_size: int) -> float:
    """Return the distance of slices in pixels of the resized slices: median of the validation volumes, to a tenth.

    The slices of a training list carry no spacing; the headers of the volumes do.

    Args:
        dataset_file: dataset.json.
        image_size: side that slices are resized to.

    Raises:
        TskdError: the validation list is empty or has no volumes.
    """
    ratios = []
    for entry in entries(dataset_file, "validation"):
        if not entry["image"].endswith((".nii", ".nii.gz")):
            raise TskdError(
                f"{entry['image']}: expected volumes (.nii, .nii.gz) for validation, as a 3-D student needs them, "
                "found an image. Train a 2-D student, or give the anisotropy"
            )
        image = nib.load(Path(entry["image"]))
        axes = np.argsort(nib.io_orientation(image.affine)[:, 0])  # of the file, along x, y and z of the patient
        x, y, z = np.asarray(image.header.get_zooms()[:3])[axes]
        width, height, _ = np.asarray(image.shape[:3])[axes]
        ratios.append(z * image_size / np.sqrt(x * width * y * height))
    return round(float(np.median(ratios)), 1)
