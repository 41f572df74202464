"""Find the masks that another program has written for a list of a data set."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tskd.data import load_label, load_volume, to_lps, write_volume
from tskd.data.datalist import IGNORE
from tskd.data.io.image_files import distinct, palette_problems, stored_mask, write_picture
from tskd.errors import TskdError
from tskd.files import composed, files_below

logger = logging.getLogger(__name__)

_ENDINGS = re.compile(r"(_seg)?\.(nii\.gz|nii|png|bmp|tiff?)$", re.IGNORECASE)
_SLICE = re.compile(r"(?P<case>.+)_(?P<number>\d{3,})")


def predicted_masks(cases: list[dict[str, str]], folder: str | Path, draft: Path, structures: int) -> dict[str, str]:
    """Return case -> file with its mask under `draft`, as `tskd check` takes labels.

    A mask is called by its case (`CASE.nii.gz`, `CASE_seg.nii.gz`, `CASE.png`). A volume's may also be axial slices
    `CASE_000.png`, `CASE_001.png`, ..., as nnU-Net predicts them from `tskd export --to nnunet`; slices that are not
    there show no structure, and a line says how many. Axes of volumes may be in another order or direction than the
    image's. Values are class indices, also in a grey palette, or black and white for one structure.
    Colours of a palette have to be the same in all files.

    Args:
        cases: entries of a list, with absolute paths.
        folder: where the masks are, at any depth.
        draft: folder for the masks.
        structures: how many the data set has.

    Raises:
        TskdError: no folder; a case without a mask or with several; another size or place; other values.
    """
    if not Path(folder).is_dir():
        raise TskdError(f"{folder}: expected a folder with masks, found none. Correct the path.")
    files: dict[str, list[Path]] = {}
    for path in files_below(Path(folder)):
        if (ending := _ENDINGS.search(path.name)) and path.is_file():
            files.setdefault(composed(path.name[: ending.start()]), []).append(path)
    masks: dict[str, str] = {}
    missing: list[str] = []
    palettes: dict[Path, Mapping[int, tuple[int, ...]]] = {}
    for entry in cases:
        case, name, volume = entry["case"], composed(entry["case"]), ".nii" in entry["image"]
        named = files.get(name, [])
        if len(named) > 1:
            raise TskdError(f"{folder}: expected one mask of {case}, found {', '.join(map(str, named))}.")
        slices = {int(m["number"]): files[n][0] for n in files if (m := _SLICE.fullmatch(n)) and m["case"] == name}
        if not volume or not named:
            pictures = named or list(slices.values())
            palettes |= {path: stored_mask(path).colours for path in pictures}
        masks[case] = str(draft / f"{case}{'.nii.gz' if volume else '.png'}")
        if not named and not (volume and slices):
            missing.append(case)
        elif volume:
            image, affine = load_volume(entry["image"])
            if named:
                mask = _class_indices(load_label(named[0], image.shape, affine), structures, named[0])
            else:
                mask = _stack(slices, image, affine, structures, case)
            write_volume(masks[case], mask, affine)
        else:
            write_picture(Path(masks[case]), _class_indices(stored_mask(named[0]).values, structures, named[0]))
    if missing:
        shown = ", ".join(missing[:5])
        raise TskdError(
            f"{folder}: expected a mask of every case, called CASE.png or CASE.nii.gz, found none of {shown} "
            f"({len(missing)} of {len(cases)})."
        )
    if different := palette_problems(palettes):
        raise TskdError("\n  - ".join([f"{folder}: {len(different)} problems", *different[:20]]))
    return masks


def _class_indices(values: np.ndarray, structures: int, path: Path) -> np.ndarray:
    """Return a mask as uint8; white, in pictures also of 16 bits, is a structure that is alone, else 255 no label."""
    present = distinct(values)
    drawn = set(present) - {0}
    if structures == 1 and drawn in ({255}, {65535}):
        return (values > 0).astype(np.uint8)
    if not drawn <= {*range(1, structures + 1), IGNORE}:
        raise TskdError(
            f"{path}: expected class indices 0 to {structures}, or black and white for one structure, found "
            f"{', '.join(map(str, present[:12]))}. Write the indices that `labels` of dataset.json has."
        )
    return values.astype(np.uint8)


def _stack(slices: Mapping[int, Path], image: np.ndarray, affine: np.ndarray, structures: int, case: str) -> np.ndarray:
    """Return axial slices [rows, columns] as a mask with the axes of the image."""
    order = to_lps(np.arange(image.size).reshape(image.shape), affine)[0]
    turned = np.zeros(order.shape, np.uint8)
    for number, path in slices.items():
        pixels = _class_indices(stored_mask(path).values, structures, path).T
        if number >= order.shape[2] or pixels.shape != order.shape[:2]:
            raise TskdError(
                f"{path}: expected one of {order.shape[2]} axial slices of {order.shape[0]} x {order.shape[1]} pixels, "
                f"found number {number} of {' x '.join(map(str, pixels.shape))}."
            )
        turned[:, :, number] = pixels
    if absent := sorted(set(range(order.shape[2])) - slices.keys()):
        logger.warning(
            "%s: %d of %d axial slices are not there (%s), and count as without a structure",
            case, len(absent), order.shape[2], ", ".join(map(str, absent[:8])) + (", ..." if len(absent) > 8 else ""),
        )  # fmt: skip
    mask = np.zeros(image.size, np.uint8)
    mask[order.ravel()] = turned.ravel()
    return mask.reshape(image.shape)
