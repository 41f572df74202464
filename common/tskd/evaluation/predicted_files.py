"""Find the masks that another program has written for a list of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tskd.data import load_label, load_volume, to_lps, write_volume
from tskd.errors import TskdError

_ENDINGS = re.compile(r"(_seg)?\.(nii\.gz|nii|png|bmp|tiff?)$", re.IGNORECASE)
_SLICE = re.compile(r"(?P<case>.+)_(?P<number>\d{3,})")


def predicted_masks(cases: list[dict[str, str]], folder: str | Path, draft: Path) -> dict[str, str]:
    """Return case -> file with its mask, as `tskd check` takes labels.

    A mask is called by its case (`CASE.nii.gz`, `CASE_seg.nii.gz`, `CASE.png`). A volume's may also be axial slices
    `CASE_000.png`, `CASE_001.png`, ..., as nnU-Net predicts them from `tskd export --to nnunet`; slices that are not
    there show no structure. Axes of volumes may be in another order or direction than the image's.

    Args:
        cases: entries of a list, with absolute paths.
        folder: where the masks are, at any depth.
        draft: folder for volumes in the order of their images' axes.

    Raises:
        TskdError: no folder; a case without a mask or with several; another size or place.
    """
    if not Path(folder).is_dir():
        raise TskdError(f"{folder}: expected a folder with masks, found none. Correct the path.")
    files: dict[str, list[Path]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if (ending := _ENDINGS.search(path.name)) and path.is_file():
            files.setdefault(path.name[: ending.start()], []).append(path)
    several = [name for name, paths in files.items() if len(paths) > 1]
    masks, missing = {}, []
    for entry in cases:
        case, volume = entry["case"], ".nii" in entry["image"]
        if case in several:
            raise TskdError(f"{folder}: expected one mask of {case}, found {', '.join(map(str, files[case]))}.")
        slices = {int(m["number"]): files[n][0] for n in files if (m := _SLICE.fullmatch(n)) and m["case"] == case}
        if case not in files and not (volume and slices):
            missing.append(case)
        elif volume:
            image, affine = load_volume(entry["image"])
            mask = load_label(files[case][0], image.shape, affine) if case in files else _stack(slices, image, affine)
            masks[case] = str(draft / f"{case}.nii.gz")
            write_volume(masks[case], mask, affine)
        else:
            masks[case] = str(files[case][0])
    if missing:
        shown = ", ".join(missing[:5])
        raise TskdError(
            f"{folder}: expected a mask of every case, called CASE.png or CASE.nii.gz, found none of {shown} "
            f"({len(missing)} of {len(cases)})."
        )
    return masks


def _stack(slices: Mapping[int, Path], image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return axial slices [rows, columns] as a mask with the axes of the image."""
    order = to_lps(np.arange(image.size).reshape(image.shape), affine)[0]
    turned = np.zeros(order.shape, np.uint8)
    for number, path in slices.items():
        with Image.open(path) as picture:
            pixels = np.asarray(picture).T
        if number >= order.shape[2] or pixels.shape != order.shape[:2]:
            raise TskdError(
                f"{path}: expected one of {order.shape[2]} axial slices of {order.shape[0]} x {order.shape[1]} pixels, "
                f"found number {number} of {' x '.join(map(str, pixels.shape))}."
            )
        turned[:, :, number] = pixels
    mask = np.zeros(image.size, np.uint8)
    mask[order.ravel()] = turned.ravel()
    return mask.reshape(image.shape)
