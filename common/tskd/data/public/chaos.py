"""Prepare CHAOS abdominal MR (T2-SPIR): four organs, patient-grouped split."""

import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from tskd.data.io.intensity import KEY, preset
from tskd.data.prepare.volume_writer import Patient, fingerprint, preparation, prepare_volumes
from tskd.data.public.slice_masks import by_name, label_volume
from tskd.data.split import choose_lists
from tskd.errors import TskdError


def _between(low: int, high: int, greys: np.ndarray) -> np.ndarray:
    return (greys >= low) & (greys <= high)


LABELS = {"0": "background", "1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"}
TEST, VALIDATION = ("5", "13", "21", "36"), ("8",)  # the split our results are reported on; the rest is training
GREYS = ((55, 70), (110, 135), (175, 200), (240, 255))  # of the four organs in the PNG masks, as the data set says
IN_WORDS = f"the greys {GREYS} of the four organs"
ORGANS = {value: partial(_between, low, high) for value, (low, high) in enumerate(GREYS, start=1)}

_PROVENANCE = {
    "source": "CHAOS abdominal MR, T2-SPIR (A. E. Kavur et al., Medical Image Analysis 69:101950, 2021), "
    "doi 10.5281/zenodo.3431873",
    "licence": "CC BY-NC-SA 4.0",
}


def prepare_chaos_mr(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
    intensity: Literal["percentiles", "body"] = "percentiles",
) -> Path:
    """Prepare CHAOS MR T2-SPIR: slices of the training subjects, volumes of the others, dataset.json.

    Args:
        source: the archive as it is published, or a folder in it that holds SUBJECT/T2SPIR/ with DICOM_anon/ and
            Ground/; or a folder with images/image_SUBJECT.nii.gz and masks/label_SUBJECT.nii.gz.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: None keeps the fixed split (test 5, 13, 21, 36; validation 8; the rest training); an integer draws other
            subjects into lists of the same sizes. It also orders the training list (None: 0).
        fold: cross-validation fold 0 to `folds` - 1: its test set is that fold, one further subject is validation.
        folds: number of folds when `fold` is given.
        intensity: how volumes are scaled: "percentiles" or "body" (see `Intensity`).

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: subjects or masks missing, masks that do not fit, or an output folder that holds something else.
    """
    patients = _subjects(Path(source))
    split, rule = choose_lists([patient.group for patient in patients], TEST, VALIDATION, seed, fold, folds)
    settings = {
        "name": "chaos_mr",
        "seed": seed,
        "split": split,
        KEY: preset(intensity).to_json(),
        "inputs": {p.group: [fingerprint(p.image), fingerprint(Path(str(p.label)))] for p in patients},
    }
    header = {
        "name": "chaos_mr",
        "modality": "MR",
        "channels": 1,
        "labels": LABELS,
        "provenance": {**_PROVENANCE, "split": rule},
    }
    with preparation(output, settings) as needed:
        if needed:
            with tempfile.TemporaryDirectory() as folder:
                volumes = [_with_volume(patient, Path(folder)) for patient in patients]
                prepare_volumes(output, volumes, split, header, seed or 0, preset(intensity))
    return Path(output, "dataset.json")


def _subjects(source: Path) -> list[Patient]:
    if series := sorted(path for path in source.rglob("T2SPIR") if (path / "Ground").is_dir()):
        return [Patient(path.parent.name, path / "DICOM_anon", path / "Ground") for path in series]
    images = sorted(source.glob("images/image_*.nii.gz"))
    if not images:
        raise TskdError(
            f"{source}: expected <subject>/T2SPIR/ with DICOM_anon/ and Ground/, or images/image_<subject>.nii.gz, "
            "found none of them. Give the folder that has them."
        )
    patients = []
    for image in images:
        group = image.name.removeprefix("image_").removesuffix(".nii.gz")
        patients.append(Patient(group, image, source / "masks" / f"label_{group}.nii.gz"))
    missing = [str(patient.label) for patient in patients if not Path(str(patient.label)).is_file()]
    if missing:
        raise TskdError(f"{source}: expected a mask for each image, found no {', '.join(missing)}. Add the files.")
    return patients


def _with_volume(patient: Patient, folder: Path) -> Patient:
    """Prepare the patient with a NIfTI label in `folder` in place of one PNG for each DICOM file, of the same name."""
    masks = Path(str(patient.label))
    if masks.is_file():
        return patient
    target = folder / f"{patient.group}.nii.gz"
    files = by_name(patient.image, masks)
    return replace(patient, label=label_volume(patient.image, files, ORGANS, target, IN_WORDS))
