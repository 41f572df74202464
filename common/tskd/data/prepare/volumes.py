"""Prepare one's own volumes: a folder of images and one of masks, as users of nnU-Net have them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tskd.data.io.intensity import KEY, Intensity, preset
from tskd.data.io.nifti import NIFTI
from tskd.data.prepare.volume_writer import Patient, fingerprint, preparation, prepare_volumes
from tskd.data.split import draw_lists
from tskd.errors import TskdError


def prepare_volumes_masks(
    output: str | os.PathLike[str],
    labels: Sequence[str],
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    unlabelled: str | os.PathLike[str] | None = None,
    image_suffix: str = "",
    mask_suffix: str = "",
    test: float = 0.2,
    validation: float = 0.1,
    seed: int = 0,
    fold: int | None = None,
    folds: int = 3,
    name: str | None = None,
    modality: str = "unknown",
    intensity: Literal["percentiles", "body"] = "percentiles",
    window: tuple[float, float] | None = None,
) -> Path:
    """Prepare one's own volumes, one a patient.

    Args:
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        labels: names of the structures, for mask values 1, 2, ...
        images: folder of NIfTI files and folders with a DICOM series each.
        masks: folder of NIfTI files with the images' names.
        unlabelled: folder of further volumes without masks.
        image_suffix: what an image's name has after the patient, such as nnU-Net's "_0000".
        mask_suffix: what a mask's name has after the patient.
        test: share of the patients for the test list.
        validation: share of the patients for the validation list.
        seed: seed of the draw and of the order of the training list.
        fold: instead of `test`: this fold, 0 to `folds` - 1, of a cross-validation over the patients is the test list.
        folds: number of folds when `fold` is given.
        name: name of the data set; None takes the output folder's name.
        modality: such as MR or CT.
        intensity: how volumes are scaled: "percentiles" or "body" (see `Intensity`).
        window: intensities that become 0 and 1 instead, such as Hounsfield units of CT.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, a window that is not in order, or an output folder that holds something
            else.
    """
    scaling = preset(intensity) if window is None else Intensity("window", *window)
    volumes, truths = _by_patient(images, image_suffix), _by_patient(masks, mask_suffix)
    if alone := sorted(volumes.keys() ^ truths.keys()):
        raise TskdError(
            f"{masks}: expected a mask for each image and an image for each mask, found none for "
            f"{', '.join(alone[:8])}. Give the endings of the names (--image-suffix, --mask-suffix), or put volumes "
            "without a mask into a folder of their own (--unlabelled)."
        )
    patients = [Patient(code, path, truths[code]) for code, path in volumes.items()]
    split, rule = draw_lists(volumes, test, validation, seed, fold, folds)
    if unlabelled is not None:
        patients += [Patient(code, path) for code, path in _by_patient(unlabelled, image_suffix).items()]
        split["training"] = sorted({*split["training"], *(p.group for p in patients if p.label is None)})
    header = {
        "name": name or Path(output).resolve().name,
        "modality": modality,
        "channels": 1,
        "labels": {str(index): label for index, label in enumerate(["background", *labels])},
        "provenance": {"source": "own volumes", "licence": "not stated", "split": rule},
    }
    inputs = {p.group: [fingerprint(path) for path in (p.image, p.label) if path] for p in patients}
    with preparation(
        output, {**header, "split": split, "seed": seed, "inputs": inputs, KEY: scaling.to_json()}
    ) as needed:
        if needed:
            prepare_volumes(output, patients, split, header, seed, scaling)
    return Path(output, "dataset.json")


def _by_patient(folder: str | os.PathLike[str], suffix: str) -> dict[str, Path]:
    """NIfTI files and DICOM folders by the patient in their name."""
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []:
        if not path.name.startswith(".") and (path.is_dir() or path.name.endswith(NIFTI)):
            code = path.name if path.is_dir() else path.name.removesuffix(".gz").removesuffix(".nii")
            code = code.removesuffix(suffix)
            if code in found:
                raise TskdError(f"{path}: expected one volume for '{code}', found {found[code].name} too. Remove one.")
            found[code] = path
    if not found:
        raise TskdError(f"{folder}: expected volumes (.nii, .nii.gz or DICOM folders), found none. Correct the path.")
    return found
