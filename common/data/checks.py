"""Open every file of a dataset once and list what is wrong with it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.data.datalist import IGNORE, named_entries
from common.data.volumes import NIFTI, as_label, load_volume
from common.errors import TskdError


def file_problems(data: Mapping[str, Any], folder: Path) -> list[str]:
    """One line for each file that is missing, unreadable, empty, of the wrong size or with unknown labels.

    Args:
        data: content of dataset.json; malformed entries are passed over (their structure is reported elsewhere).
        folder: folder of dataset.json.
    """
    problems: list[str] = []
    classes = len(data["labels"]) if isinstance(data.get("labels"), dict) else IGNORE
    for _, entry in named_entries(data):
        problems += _entry_problems(entry, folder, classes, data.get("channels"))
    return problems


def _entry_problems(entry: Mapping[str, Any], folder: Path, classes: int, channels: Any) -> list[str]:
    problems: list[str] = []
    sizes: dict[str, tuple[int, ...]] = {}
    for key in ("image", "label"):
        if not isinstance(entry.get(key), str):
            continue
        try:
            array, spatial_dims = _read(folder, entry[key])
            sizes[key] = array.shape[:spatial_dims]
            if key == "image":
                _refuse_odd_image(
                    entry[key], array, array.shape[spatial_dims] if array.ndim > spatial_dims else 1, channels
                )
            else:
                _refuse_odd_label(entry[key], array, classes)
        except TskdError as error:
            problems.append(f"{error} (case {entry.get('case')!r}, key '{key}')")
    if len(set(sizes.values())) > 1:
        problems.append(
            f"{entry['label']}: expected the size of its image {sizes['image']}, found {sizes['label']}. "
            f"Correct the pair (case {entry.get('case')!r})."
        )
    return problems


def _read(folder: Path, name: str) -> tuple[np.ndarray, int]:
    """Voxels [X, Y, Z] and 3, or pixels [X, Y] or [X, Y, C] and 2."""
    path = folder / name
    if not path.exists():
        outside = not Path(os.path.normpath(path)).is_relative_to(folder)
        place = "outside the folder of the dataset, where it may be moved or forgotten" if outside else "there"
        raise TskdError(f"{name}: expected a file, found nothing {place}. Put the file back or correct the path.")
    if path.is_dir() or name.endswith(NIFTI):
        return load_volume(path)[0], 3
    try:
        with Image.open(path) as image:
            return np.swapaxes(np.asarray(image), 0, 1), 2
    except (OSError, ValueError, SyntaxError) as error:
        raise TskdError(
            f"{name}: expected a readable image (.png, .jpg, .nii.gz, DICOM folder), found {error}. "
            "Convert or copy it again."
        ) from error


def _refuse_odd_image(name: str, array: np.ndarray, found: int, channels: Any) -> None:
    if array.size == 0:
        raise TskdError(f"{name}: expected pixels, found size {array.shape}. Remove the entry or copy the file again.")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise TskdError(f"{name}: expected finite intensities, found NaN or infinity. Replace them.")
    if low == high:
        raise TskdError(
            f"{name}: expected an image, found the value {low} everywhere. Remove the entry or copy it again."
        )
    if isinstance(channels, int) and found != channels:
        raise TskdError(f"{name}: expected {channels} channels (key 'channels'), found {found}. Convert the image.")


def _refuse_odd_label(name: str, array: np.ndarray, classes: int) -> None:
    if array.size == 0:
        raise TskdError(f"{name}: expected a label, found size {array.shape}. Remove the entry or copy the file again.")
    values = np.unique(as_label(array, name))
    wrong = [int(value) for value in values if value >= classes and value != IGNORE]
    if wrong:
        raise TskdError(
            f"{name}: expected label values 0 to {classes - 1} (key 'labels') or {IGNORE} (unlabelled pixel), "
            f"found {wrong[:8]}. Correct the label or name the structures."
        )
