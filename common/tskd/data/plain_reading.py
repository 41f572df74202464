"""Refuse files whose stored values are not the values meant, as the bundles' readers take them as stored.

`tskd prepare` reads files as they are meant and writes plain ones; a list written by hand may name any file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tskd.data.io.geometry import same_grid
from tskd.data.io.image_files import read_image, stored_mask
from tskd.data.io.nifti import read_nifti
from tskd.data.io.picture_header import open_picture, orientation
from tskd.errors import TskdError

_REMEDY = "Prepare the images with `tskd prepare images-masks`, which writes plain ones."


def refuse_misread_image(path: Path, name: str, pixels: np.ndarray) -> None:
    """Refuse a picture whose stored pixels [columns, rows(, channels)] are not what it shows.

    Raises:
        TskdError: several pages, transparency, a palette, a turn by EXIF, ...
    """
    open_picture(path)
    if (turned := orientation(path)) != 1 and path.suffix.lower() not in (".tif", ".tiff"):
        raise TskdError(
            f"{name}: expected pixels stored upright, found the EXIF orientation {turned}: a training would see them "
            f"as stored, a shipped bundle turned. {_REMEDY}"
        )
    shown = np.swapaxes(read_image(path, 1 if pixels.ndim == 2 else 3), 0, 1)
    if shown.shape != pixels.shape or (shown != pixels).any():
        raise TskdError(f"{name}: expected stored numbers that are the picture's grey or RGB values. {_REMEDY}")


def refuse_misread_label(path: Path, name: str, values: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Refuse a label picture whose stored numbers [columns, rows] are not its values; return its palette, if coloured.

    Raises:
        TskdError: greys in a palette of another order, pages, transparency, a turn by EXIF, few bits, ...
    """
    meant = stored_mask(path)
    shown = np.swapaxes(meant.values, 0, 1)
    if (turned := orientation(path)) != 1 and path.suffix.lower() not in (".tif", ".tiff"):
        raise TskdError(f"{name}: expected pixels stored upright, found the EXIF orientation {turned}. {_REMEDY}")
    if shown.shape != values.shape or (shown != values).any():
        with Image.open(path) as image:
            mode = image.mode
        raise TskdError(
            f"{name}: expected stored numbers that are the values shown, found mode {mode} with the numbers "
            f"{np.unique(values)[:6].tolist()} that mean {np.unique(shown)[:6].tolist()}. {_REMEDY}"
        )
    return dict(meant.colours)


def refuse_unscaled_volume(path: Path, name: str, affine: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse a NIfTI file whose affine, as nibabel gives it, is not in millimetres.

    Raises:
        TskdError: with the unit.
    """
    image = read_nifti(path)
    if not same_grid(np.asarray(image.affine, float), affine, shape):
        raise TskdError(
            f"{name}: expected millimetres, found the unit {image.header.get_xyzt_units()[0]}: distances would be "
            "wrong. Write the volume in mm, as `tskd prepare volumes` does."
        )


def refuse_truncated(name: str, label: np.ndarray) -> None:
    """Refuse a label volume with values just below a whole number (a scale factor), which the bundles would cut down.

    Raises:
        TskdError: naming the factor.
    """
    if label.dtype.kind == "f" and np.isfinite(label).all() and (np.floor(label) != np.rint(label)).any():
        value = float(label[np.floor(label) != np.rint(label)][0])
        raise TskdError(
            f"{name}: expected label values that are whole numbers from 0 to 255, found {[value]}. A scale factor in "
            "the header (scl_slope, scl_inter) may be the cause: write the values unscaled."
        )
