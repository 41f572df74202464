"""Open every file of a dataset once and list what is wrong with it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tskd.data.datalist import FILES, IGNORE, load, named_entries, raise_if, read, structure_problems
from tskd.data.io.image_files import distinct
from tskd.data.io.intensity import Intensity
from tskd.data.io.nifti import NIFTI, as_label, load_label, load_volume, same_grid
from tskd.errors import TskdError


def check(dataset_file: str | os.PathLike[str], labelled: bool = True) -> None:
    """Open every file of a dataset once and report everything that is wrong with it in one error.

    Args:
        dataset_file: path of dataset.json.
        labelled: False for a list of images only (synthetic images): `training` may then be empty.

    Raises:
        TskdError: one line a problem, each with the file or key, what was expected, what was found and the fix.
    """
    data = load(dataset_file)
    problems = structure_problems(data)
    if labelled and data.get("training") == []:
        problems.append("training: expected at least one labelled entry, found none. Add {image, label, group, case}.")
    raise_if(problems + file_problems(data, Path(dataset_file).resolve().parent), dataset_file)


def check_for_training(
    dataset_file: str | os.PathLike[str], num_classes: int | None = None, in_channels: int | None = None
) -> None:
    """`check`, and whether the dataset fits the network, before a training begins.

    Does nothing where there is no file: MONAI Label hands its own list to `train#dataset#data`; anything else that
    needs the file says that it is missing.

    Args:
        dataset_file: path of dataset.json.
        num_classes: classes of the network with the background, None to not compare.
        in_channels: channels that the network takes, None for any.

    Raises:
        TskdError: as `check`, or naming the key to set and its value where the network does not fit.
    """
    if not Path(dataset_file).is_file():
        return
    check(dataset_file)
    data = read(dataset_file)
    for key, wanted, found in (
        ("num_classes", num_classes, len(data["labels"])),
        ("in_channels", in_channels, data["channels"]),
    ):
        if wanted is not None and wanted != found:
            raise TskdError(
                f"{dataset_file}: expected {key} = {wanted} as the configuration says, found {found}. "
                f"Pass --{key} {found}"
            )


def file_problems(data: Mapping[str, Any], folder: Path) -> list[str]:
    """One line for each file that is missing, unreadable, empty, of the wrong size or place, or with unknown labels.

    A scaling of the intensities that is none has a line, too.

    Args:
        data: content of dataset.json; malformed entries are passed over (their structure is reported elsewhere).
        folder: folder of dataset.json.
    """
    problems: list[str] = []
    try:
        Intensity.from_json(data)
    except TskdError as error:
        problems.append(str(error))
    classes = len(data["labels"]) if isinstance(data.get("labels"), dict) else IGNORE
    seen: set[int] = set()  # label values of the training list
    for name, entry in named_entries(data):
        found, values = _entry_problems(entry, folder, classes, data.get("channels"))
        problems += found
        if name in ("training", "unlabelled") and str(entry.get("image")).endswith(NIFTI):
            problems.append(
                f"{entry['image']}: expected a 2-D image in '{name}', found a volume (case {entry.get('case')!r}). "
                "Cut it into slices, as `tskd prepare volumes` does."
            )
        seen |= values if name == "training" else set()
    if seen and seen <= {0, IGNORE}:
        problems.append(
            f"training: expected labels that show a structure, found only the values {sorted(seen)} (0 is background, "
            f"{IGNORE} an unlabelled pixel). Write a black and white mask as 0 and 1."
        )
    return problems


def _entry_problems(entry: Mapping[str, Any], folder: Path, classes: int, channels: Any) -> tuple[list[str], set[int]]:
    """Problems of an entry's image and labels, and the values of its label (not of a second observer's)."""
    problems: list[str] = []
    image: np.ndarray | None = None
    affine: np.ndarray | None = None
    values: set[int] = set()
    case = f"(case {entry.get('case')!r})"
    try:
        if isinstance(entry.get("image"), str):
            image, affine = _read(folder, entry["image"])
            _refuse_palette(folder, entry["image"], affine)
            _refuse_odd_image(entry["image"], image, channels if affine is None else None)
    except TskdError as error:
        problems.append(f"{error} {case}")
    for key in FILES[1:]:
        try:
            if isinstance(entry.get(key), str):
                label = _read_label(folder, entry[key], image, affine)
                found = {int(value) for value in distinct(label)}
                values |= found if key == "label" else set()
                _refuse_odd_label(entry[key], label, found, classes)
        except TskdError as error:
            problems.append(f"{error} {case}")
    return problems, values


def _read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Voxels [X, Y, Z] with their affine, or pixels [X, Y] or [X, Y, C] and None."""
    path = folder / name
    if not path.exists():
        outside = not Path(os.path.normpath(path)).is_relative_to(folder)
        place = "outside the folder of the dataset, where it may be moved or forgotten" if outside else "there"
        raise TskdError(f"{name}: expected a file, found nothing {place}. Put the file back or correct the path.")
    if path.is_dir() or name.endswith(NIFTI):
        return load_volume(path)
    try:
        with Image.open(path) as image:
            return np.swapaxes(np.asarray(image), 0, 1), None
    except (OSError, ValueError, SyntaxError) as error:
        raise TskdError(
            f"{name}: expected a readable image (.png, .jpg, .nii.gz, DICOM folder), found {error}. "
            "Convert or copy it again."
        ) from error


def _read_label(folder: Path, name: str, image: np.ndarray | None, affine: np.ndarray | None) -> np.ndarray:
    """A label, compared with its image (None: unreadable) in size, and for volumes in place."""
    label, place = _read(folder, name)
    if image is not None and affine is not None and place is not None:
        fitting = load_label(folder / name, image.shape, affine)
        if not same_grid(place, affine):  # validation and evaluation compare voxel by voxel
            raise TskdError(
                f"{name}: expected the axes and the place of its image, found the affine {place.round(3).tolist()} "
                f"instead of {affine.round(3).tolist()}. `tskd prepare volumes` writes labels so."
            )
        return fitting
    if image is not None and label.shape != image.shape[: 2 if affine is None else 3]:
        raise TskdError(
            f"{name}: expected the size of its image {image.shape[: 2 if affine is None else 3]}, found {label.shape}. "
            "Correct the pair."
        )
    return label


def _refuse_palette(folder: Path, name: str, affine: np.ndarray | None) -> None:
    """An image that MONAI's reader would take the places in a palette of, or two values, for grey."""
    if affine is None:
        with Image.open(folder / name) as image:
            if image.mode in ("P", "PA", "1"):
                raise TskdError(
                    f"{name}: expected grey or RGB pixels, found {'one bit' if image.mode == '1' else 'a palette'} "
                    f"(mode {image.mode}). Convert the image, as `tskd prepare images-masks` does."
                )


def _refuse_odd_image(name: str, array: np.ndarray, channels: Any) -> None:
    if array.size == 0:
        raise TskdError(f"{name}: expected pixels, found size {array.shape}. Remove the entry or copy the file again.")
    if isinstance(channels, int) and array.dtype != np.uint8:  # a 2-D image; volumes have any numbers
        raise TskdError(
            f"{name}: expected 8 bits a channel, found {array.dtype}: a bundle would see white. Scale it to 0 to 255, "
            "as `tskd prepare images-masks` does."
        )
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise TskdError(f"{name}: expected finite intensities, found NaN or infinity. Replace them.")
    if low == high:
        raise TskdError(
            f"{name}: expected an image, found the value {low} everywhere. Remove the entry or copy it again."
        )
    found = 1 if array.ndim == 2 else array.shape[2]
    if isinstance(channels, int) and found != channels:
        raise TskdError(f"{name}: expected {channels} channels (key 'channels'), found {found}. Convert the image.")


def _refuse_odd_label(name: str, label: np.ndarray, values: set[int], classes: int) -> None:
    as_label(label, name)
    if not values:
        raise TskdError(f"{name}: expected a label, found size {label.shape}. Remove the entry or copy the file again.")
    wrong = sorted(value for value in values if value >= classes and value != IGNORE)
    if wrong:
        raise TskdError(
            f"{name}: expected label values 0 to {classes - 1} (key 'labels') or {IGNORE} (unlabelled pixel), "
            f"found {wrong[:8]}. Correct the label or name the structures."
        )
