"""A virtual cohort of abdominal MR, so that every stage can be tried and tested where no patient data may go."""

import os
from pathlib import Path

import numpy as np
from nibabel import orientations

from tskd.data.io.nifti import write_volume
from tskd.data.phantom.anatomy import Abdomen
from tskd.data.phantom.dicom_writer import write_series
from tskd.data.phantom.organs import paint_abdomen
from tskd.data.phantom.scanner import scan
from tskd.data.prepare.volume_writer import Patient, preparation, prepare_volumes
from tskd.data.public.chaos import LABELS
from tskd.data.split import split_groups
from tskd.errors import TskdError

_ORIENTATIONS = ("LAS", "RAS", "LPS", "RPI")


def prepare_phantom(
    output: str | os.PathLike[str],
    num_patients: int = 24,
    seed: int = 0,
    image_size: int = 128,
    num_slices: int = 12,
    num_validation: int = 3,
    num_test: int = 7,
) -> Path:
    """Make virtual patients with liver, kidneys and spleen, write them as a hospital would, and prepare them.

    Every second patient is a DICOM series in output/raw, the others are NIfTI of varying axis order; anatomy, contrast,
    noise and spacing differ from patient to patient. The usual readers then make slices/, volumes/ and dataset.json.
    The same arguments give the same bytes.

    Args:
        output: new folder; left as it is if it holds the finished result of the same arguments.
        num_patients: patients altogether.
        seed: seed of everything: patients, split and order of the training list.
        image_size: pixels along both sides of a slice.
        num_slices: slices a volume, which always spans the abdomen from below the kidneys to the diaphragm.
        num_validation: patients for validation.
        num_test: patients for the test; the rest is training.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: numbers that do not fit, or an output folder that holds something else.
    """
    if num_patients - num_validation - num_test < 1 or num_validation < 0 or num_test < 0:
        raise TskdError(
            f"num_patients: expected more than num_validation + num_test = {num_validation + num_test}, so that some "
            f"remain for training, found {num_patients}. Raise num_patients."
        )
    if image_size < 16 or num_slices < 2:
        raise TskdError(
            f"image_size, num_slices: expected at least 16 and 2, found {image_size} and {num_slices}. Raise them."
        )
    settings = {
        "name": "phantom",
        "num_patients": num_patients,
        "seed": seed,
        "image_size": image_size,
        "num_slices": num_slices,
        "num_validation": num_validation,
        "num_test": num_test,
    }
    header = {
        "name": "phantom",
        "modality": "MR",
        "channels": 1,
        "labels": LABELS,
        "provenance": {
            "source": "virtual cohort computed by tskd (no person behind it)",
            "licence": "CC0 1.0",
            "parameters": settings,
        },
    }
    with preparation(output, settings) as needed:
        if needed:
            raw = Path(output, "raw")
            patients = [_write_patient(raw, number, seed, image_size, num_slices) for number in range(num_patients)]
            groups = [patient.group for patient in patients]
            training, validation, test = split_groups(groups, (None, num_validation, num_test), seed)
            split = {"training": sorted(training), "validation": sorted(validation), "test": sorted(test)}
            prepare_volumes(output, patients, split, header, seed=seed)
    return Path(output, "dataset.json")


def virtual_patient(
    seed: int, number: int, image_size: int = 128, num_slices: int = 12
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One virtual patient.

    Returns:
        Image int16 [X, Y, Z] in LPS order, label uint8 of the same shape, affine (RAS+, mm).
    """
    rng = np.random.default_rng([seed, number])
    half_width = rng.uniform(145, 175)
    half_depth = half_width * rng.uniform(0.62, 0.75)
    pixel = round(2 * half_width * rng.uniform(1.05, 1.2) / image_size, 4)
    distance = round(rng.uniform(205, 230) / num_slices, 3)
    body = Abdomen(rng, (image_size, image_size, num_slices), np.array([pixel, pixel, distance]), z_start=-80.0)
    paint_abdomen(body, half_width, half_depth)
    affine = np.diag([-pixel, -pixel, distance, 1.0])  # LPS axes in a RAS+ world
    centre = pixel * (image_size - 1) / 2
    affine[:3, 3] = np.round(
        np.array([centre, centre, -80.0]) + rng.uniform(-60, 60, 3), 3
    )  # the table stands anywhere
    return scan(body), body.label, affine


def _write_patient(raw: Path, number: int, seed: int, image_size: int, num_slices: int) -> Patient:
    """Write image and label of a patient: even numbers as DICOM, odd ones as NIfTI in some axis order."""
    image, label, affine = virtual_patient(seed, number, image_size, num_slices)
    group = f"phantom_{number:03d}"
    rng = np.random.default_rng([seed, number, 1])
    axes = _ORIENTATIONS[int(rng.integers(len(_ORIENTATIONS)))]
    label_file = raw / f"{group}_label.nii.gz"
    write_volume(label_file, *_reorient(label, affine, axes))
    if number % 2:
        image_file = raw / f"{group}.nii.gz"
        write_volume(image_file, *_reorient(image, affine, axes))
    else:
        image_file = raw / group
        order = rng.permutation(num_slices).tolist()
        write_series(image_file, image, affine, f"PHANTOM-{number:03d}", f"tskd {seed} {number}", order)
    return Patient(group, image_file, label_file)


def _reorient(array: np.ndarray, affine: np.ndarray, axes: str) -> tuple[np.ndarray, np.ndarray]:
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(axes)))
    return orientations.apply_orientation(array, turn), affine @ orientations.inv_ornt_aff(turn, array.shape)
