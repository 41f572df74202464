"""Open every file of a dataset once and list what is wrong with it."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tskd.data.budget import Budget
from tskd.data.datalist import FILES, IGNORE, load, named_entries, raise_if, read, structure_problems
from tskd.data.io.geometry import same_grid
from tskd.data.io.image_files import distinct, palette_problems, stored_mask
from tskd.data.io.intensity import Intensity
from tskd.data.io.nifti import NIFTI, as_label, load_label, load_volume
from tskd.data.io.picture_header import as_stored, open_picture, stored_pixels
from tskd.data.plain_reading import refuse_misread_image, refuse_misread_label, refuse_truncated, refuse_unscaled_volume
from tskd.data.plausibility import Shown, cut_warnings, intensity_range, structure_warnings, unit_warnings, warn
from tskd.data.prepare.patients import warn_of_several
from tskd.data.prepare.volume_checks import refuse_unplaced_pair, set_aside_by_slice
from tskd.errors import TskdError
from tskd.file_content import read_ahead, settled


def check(
    dataset_file: str | os.PathLike[str], labelled: bool = True, num_labelled: Budget = None, several: bool = True
) -> bool:
    """Open every file of a dataset once and report everything that is wrong with it in one error.

    What may be right but seldom is, such as a structure that no training label shows, is logged as a warning.

    Args:
        dataset_file: path of dataset.json.
        labelled: False for a list of images only (synthetic images): `training` may then be empty.
        num_labelled: labelled budget, as `entries` takes it: structures have to be in these training labels.
        several: whether patients with names like several scans of one are a warning.

    Returns:
        Whether there was a warning.

    Raises:
        TskdError: one line a problem, each with the file or key, what was expected, what was found and the fix.
    """
    data = load(dataset_file)
    problems = structure_problems(data)
    if labelled and data.get("training") == []:
        problems.append("training: expected at least one labelled entry, found none. Add {image, label, group, case}.")
    warnings: list[str] = []
    in_files = file_problems(data, Path(dataset_file).resolve().parent, warnings, num_labelled if labelled else 0)
    raise_if(problems + in_files, dataset_file)
    warn(warnings)
    warned = bool(warnings)
    if labelled and several:
        patients = {str(entry["group"]) for _, entry in named_entries(data)}  # not cases, which may be slices of one
        warned |= warn_of_several({name: name for name in patients}, "the key group of the entries")
    return warned


def check_for_training(
    dataset_file: str | os.PathLike[str],
    num_classes: int | None = None,
    in_channels: int | None = None,
    num_labelled: Budget = None,
) -> None:
    """Check a dataset, and whether it fits the network, before a training begins.

    Does nothing where there is no file: MONAI Label hands its own list to `train#dataset#data`; anything else that
    needs the file says that it is missing.

    Args:
        dataset_file: path of dataset.json.
        num_classes: classes of the network with the background, None to not compare.
        in_channels: channels that the network takes, None for any.
        num_labelled: as `check` takes it.

    Raises:
        TskdError: as `check`, or naming the key to set and its value where the network does not fit.
    """
    if not Path(dataset_file).is_file():
        return
    check(dataset_file, num_labelled=num_labelled)
    data = read(dataset_file)
    for key, wanted, stored in (
        ("num_classes", num_classes, len(data["labels"])),
        ("in_channels", in_channels, data["channels"]),
    ):
        if wanted is not None and wanted != stored:
            raise TskdError(
                f"{dataset_file}: expected {key} = {wanted} as the configuration says, found {stored}. "
                f"Pass --{key} {stored}"
            )


def file_problems(
    data: Mapping[str, Any], folder: Path, warnings: list[str] | None = None, num_labelled: Budget = None
) -> list[str]:
    """List each file that is missing, unreadable, empty, of the wrong size or position, or with unknown labels.

    A scaling of the intensities that is none has a line, too.

    Args:
        data: content of dataset.json; malformed entries are passed over (their structure is reported elsewhere).
        folder: folder of dataset.json.
        warnings: gets a line for what may be right but seldom is.
        num_labelled: labelled budget of the warnings about structures.
    """
    problems: list[str] = []
    scaling = Intensity()
    try:
        scaling = Intensity.from_json(data)
    except TskdError as error:
        problems.append(str(error))
    labels = data["labels"] if isinstance(data.get("labels"), dict) else {}
    seen = Seen(scaling)
    outside = [
        entry[key]
        for _, entry in named_entries(data)
        for key in FILES
        if isinstance(entry.get(key), str) and _outside(folder, entry[key]) and (folder / entry[key]).exists()
    ]
    for name, entry in read_ahead(named_entries(data), partial(_read_pictures, folder)):
        problems += _entry_problems(entry, name, folder, len(labels) or IGNORE, data.get("channels"), seen)
        if name in ("training", "unlabelled") and str(entry.get("image")).endswith(NIFTI):
            problems.append(
                f"{entry['image']}: expected a 2-D image in '{name}', found a volume (case {entry.get('case')!r}). "
                "Cut it into slices, as `tskd prepare volumes` does."
            )
    problems += palette_problems(seen.palettes) + _copies(seen.copies)
    if seen.training and seen.training <= {0, IGNORE}:
        problems.append(
            f"training: expected labels that show a structure, found only the values {sorted(seen.training)} (0 is "
            f"background, {IGNORE} an unlabelled pixel). Write a black and white mask as 0 and 1."
        )
    elif white := [group for group, values in seen.values.items() if values <= {0, IGNORE} and group in seen.white]:
        problems.append(
            f"labels: expected class indices, found only 0 and 255 in all labels of {', '.join(white[:8])} (255 is an "
            "unlabelled pixel). Write a black and white mask as 0 and 1."
        )
    if warnings is not None:
        if outside:
            warnings.append(
                f"{len(outside)} files lie outside the folder of the dataset, where they may be moved unseen: "
                f"{', '.join(outside[:4])}"
            )
        warnings += structure_warnings(seen.shown, labels, num_labelled)
        warnings += cut_warnings(seen.shown, labels, f"{scaling.kind} {scaling.low:g} to {scaling.high:g}")
        warnings += unit_warnings(seen.pictures, offsets=False) + unit_warnings(seen.volumes)
    return problems


def _read_pictures(folder: Path, named: tuple[str, Mapping[str, Any]]) -> None:
    """Read the pictures of an entry, which are kept until their turn."""
    for key, read_picture in zip(FILES, (open_picture, stored_mask, stored_mask), strict=True):
        name = named[1].get(key)
        if isinstance(name, str) and not name.endswith(NIFTI) and settled(folder / name):
            read_picture(folder / name)


class Seen:
    """What the entries of a dataset hold together, gathered as they are read."""

    def __init__(self, scaling: Intensity) -> None:
        """Take how volumes are scaled."""
        self.scaling = scaling
        self.shown = Shown()
        self.training: set[int] = set()  # label values of the training list
        self.values: dict[str, set[int]] = {}  # of each patient's labels
        self.white: set[str] = set()  # patients with a label in which 255 is drawn, not left out by rows or slices
        self.palettes: dict[Path, dict[int, tuple[int, ...]]] = {}
        self.pictures: dict[str, tuple[float, float]] = {}
        self.volumes: dict[str, tuple[float, float]] = {}
        self.copies: dict[bytes, list[tuple[str, str]]] = {}  # hash of an image -> the lists that it is in, its files

    def note(self, section: str, name: str, image: np.ndarray, flat: bool) -> None:
        """Take the pixels of an image, flat ones [X, Y, ...], to compare them with those of other lists."""
        home = "training" if section == "unlabelled" else section
        digest = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
        digest.update(np.ascontiguousarray(np.swapaxes(image, 0, 1) if flat else image.T).data)  # as in memory
        self.copies.setdefault(digest.digest(), []).append((home, name))

    def take(
        self,
        name: str,
        entry: Mapping[str, Any],
        label: np.ndarray,
        values: set[int],
        image: np.ndarray | None,
        flat: bool,
    ) -> None:
        """Take the label of an entry, with the values in it, and with its image where that can be read."""
        group = str(entry.get("group"))
        self.training |= values if name == "training" else set()
        self.values.setdefault(group, set()).update(values)
        if IGNORE in values and not set_aside_by_slice(label):
            self.white.add(group)
        scaled = None
        if image is not None and image.shape == label.shape:
            scaled = image / 255 if flat else self.scaling.scale(image)
        self.shown.add(name, group, label, scaled)


def _entry_problems(
    entry: Mapping[str, Any], section: str, folder: Path, classes: int, channels: Any, seen: Seen
) -> list[str]:
    """Problems of an entry's image and labels; `seen` gathers what they hold (not of a second observer's)."""
    problems: list[str] = []
    image: np.ndarray | None = None
    affine: np.ndarray | None = None
    case = f"(case {entry.get('case')!r})"
    try:
        if isinstance(entry.get("image"), str):
            image, affine = _read(folder, entry["image"])
            _refuse_palette(folder, entry["image"], affine)
            _refuse_odd_image(entry["image"], image, channels if affine is None else None)
            path = folder / entry["image"]
            if affine is None:
                refuse_misread_image(path, entry["image"], image)
                seen.pictures[str(entry.get("case"))] = intensity_range(image)
            else:
                if path.is_file():
                    refuse_unscaled_volume(path, entry["image"], affine, image.shape)
                seen.volumes[str(entry.get("case"))] = intensity_range(image)
            seen.note(section, entry["image"], image, affine is None)
    except TskdError as error:
        problems.append(f"{error} {case}")
    for key in FILES[1:]:
        try:
            if isinstance(entry.get(key), str):
                label = _read_label(folder, entry, key, image, affine)
                values = {int(value) for value in distinct(label)}
                _refuse_odd_label(entry[key], label, values, classes)
                if not str(entry[key]).endswith(NIFTI):
                    seen.palettes[folder / entry[key]] = refuse_misread_label(folder / entry[key], entry[key], label)
                if key == "label":
                    seen.take(section, entry, label, values, image, affine is None)
        except TskdError as error:
            problems.append(f"{error} {case}")
    return problems


def _copies(images: Mapping[bytes, Sequence[tuple[str, str]]]) -> list[str]:
    """Return a line for each image that is in two of training or unlabelled, validation, and test."""
    return [
        f"{name}: expected an image of one list, as a copy in another makes every measured number too good; found the "
        f"same pixels as {first} (in '{first_home}') in '{home}'. Remove one of the two."
        for (first_home, first), *more in images.values()
        for home, name in more
        if home != first_home
    ]


def _outside(folder: Path, name: str) -> bool:
    plain = ".." not in name and not os.path.isabs(name)
    return not plain and not Path(os.path.normpath(folder / name)).is_relative_to(folder)


def _read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Voxels [X, Y, Z] with their affine, or pixels [X, Y] or [X, Y, C] and None."""
    path = folder / name
    if not path.exists():
        where = "outside the folder of the dataset, where it may be moved or forgotten"
        where = where if _outside(folder, name) else "there"
        raise TskdError(f"{name}: expected a file, found nothing {where}. Put the file back or correct the path.")
    if path.is_dir() or name.endswith(NIFTI):
        return load_volume(path)
    try:
        return np.swapaxes(stored_pixels(path), 0, 1), None
    except (OSError, ValueError, SyntaxError) as error:
        raise TskdError(
            f"{name}: expected a readable image (.png, .jpg, .nii.gz, DICOM folder), found {error}. "
            "Convert or copy it again."
        ) from error


def _read_label(
    folder: Path, entry: Mapping[str, Any], key: str, image: np.ndarray | None, affine: np.ndarray | None
) -> np.ndarray:
    """Read a label and compare it with its image (None: unreadable) in size, and for volumes in position."""
    name = entry[key]
    label, stored = _read(folder, name)
    if stored is not None:
        refuse_truncated(name, label)
    if image is not None and affine is not None and stored is not None:
        refuse_unplaced_pair(folder / entry["image"], folder / name)
        fitting = load_label(folder / name, image.shape, affine)
        if not same_grid(stored, affine, image.shape):  # validation and evaluation compare voxel by voxel
            raise TskdError(
                f"{name}: expected the axes and the place of its image, found the affine {stored.round(3).tolist()} "
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
    """Refuse an image whose palette indices, or two values, MONAI's reader would take for grey."""
    if affine is None:
        mode = as_stored(folder / name).mode
        if mode in ("P", "PA", "1"):
            raise TskdError(
                f"{name}: expected grey or RGB pixels, found {'one bit' if mode == '1' else 'a palette'} "
                f"(mode {mode}). Convert the image, as `tskd prepare images-masks` does."
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
    stored = 1 if array.ndim == 2 else array.shape[2]
    if isinstance(channels, int) and stored != channels:
        raise TskdError(f"{name}: expected {channels} channels (key 'channels'), found {stored}. Convert the image.")


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
