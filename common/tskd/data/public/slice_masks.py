"""Masks that come as one PNG for each DICOM file of a series, as CHAOS has them, made to label volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tskd.data.io.dicom_series import series_files
from tskd.data.io.image_files import list_images, mask_values
from tskd.data.io.nifti import load_volume, write_volume
from tskd.errors import TskdError


def by_name(series: Path, masks: Path) -> list[Path]:
    """Return the mask of each slice, in the order of the slices: `X.png` belongs to `X.dcm`.

    Raises:
        TskdError: slices without a mask.
    """
    files = [masks / f"{path.stem}.png" for path in series_files(series)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise TskdError(
            f"{masks}: expected a mask for each DICOM file, found no {', '.join(missing[:3])}. Add the files."
        )
    return files


def by_order(series: Path, masks: Path) -> list[Path]:
    """Return the mask of each slice, in the order of the slices: the n-th mask belongs to the n-th file, by name.

    Raises:
        TskdError: other numbers of masks and slices.
    """
    slices, files = series_files(series), list_images(masks)
    if len(files) != len(slices):
        raise TskdError(
            f"{masks}: expected a mask for each of the {len(slices)} slices, found {len(files)}. Add or remove files."
        )
    order = sorted(range(len(slices)), key=lambda position: (slices[position].name, position))
    return [file for _, file in sorted(zip(order, files, strict=True))]


def label_volume(
    series: Path,
    files: Sequence[Path],
    classes: Mapping[int, Callable[[np.ndarray], np.ndarray]],
    target: Path,
    greys: str = "the greys of the structures",
) -> Path:
    """Write the masks of a series' slices as a label volume (NIfTI) on the grid of the series.

    Args:
        series: folder of the DICOM series.
        files: a PNG for each slice.
        classes: class index -> greys of a mask to the pixels of this class.
        target: file to write.
        greys: what masks hold beside 0, for errors.

    Raises:
        TskdError: a mask of another size than its slice, or greys of no class.
    """
    image, affine = load_volume(series)
    label = np.zeros(image.shape, np.uint8)
    for position, file in enumerate(files):
        grey = mask_values(file).T
        if grey.shape != image.shape[:2]:
            raise TskdError(f"{file}: expected the size of its image {image.shape[:2]}, found {grey.shape}.")
        for value, belongs in classes.items():
            label[..., position][belongs(grey)] = value
        if odd := sorted(set(grey[(label[..., position] == 0) & (grey > 0)].tolist())):
            raise TskdError(f"{file}: expected {greys} and 0, found {odd[:5]}.")
    write_volume(target, label, affine)
    return target
