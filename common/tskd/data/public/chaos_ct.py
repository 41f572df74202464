"""Prepare CHAOS abdominal CT: the liver, in Hounsfield units."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tskd.data.io.intensity import KEY, Intensity
from tskd.data.prepare.volume_checks import Patient
from tskd.data.prepare.volume_writer import fingerprint, preparation, prepare_volumes
from tskd.data.public.slice_masks import by_order, label_volume
from tskd.data.split import draw_lists
from tskd.errors import TskdError

LABELS = {"0": "background", "1": "liver"}
WINDOW = (-160.0, 240.0)  # Hounsfield units that become 0 and 1: soft tissue
LIVER: dict[int, Callable[[np.ndarray], np.ndarray]] = {1: lambda greys: greys > 0}

_PROVENANCE = {
    "source": "CHAOS abdominal CT (A. E. Kavur et al., Medical Image Analysis 69:101950, 2021), "
    "doi 10.5281/zenodo.3431873",
    "licence": "CC BY-NC-SA 4.0",
}


def prepare_chaos_ct(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
    window: tuple[float, float] = WINDOW,
) -> Path:
    """Prepare CHAOS CT: slices of the training patients, volumes of the others, dataset.json.

    Args:
        source: the archive as it is published, or a folder in it that holds PATIENT/ with DICOM_anon/ and
            Ground/liver_GT_NNN.png; the masks are those of the files in the order of both names.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: draws the lists (test a fifth of the patients, validation a tenth) and orders the training list; None for
            0.
        fold: cross-validation fold 0 to `folds` - 1 instead: its test list is that fold.
        folds: number of folds when `fold` is given.
        window: Hounsfield units that become 0 and 1.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: patients or masks missing, masks that do not fit, or an output folder that holds something else.
    """
    folders = sorted(path.parent for path in Path(source).rglob("Ground") if any(path.glob("liver_GT_*.png")))
    if not folders:
        raise TskdError(
            f"{source}: expected <patient>/ with DICOM_anon/ and Ground/liver_GT_NNN.png below it, found none. Give "
            "the folder CT of the training archive."
        )
    patients = [Patient(path.name, path / "DICOM_anon", path / "Ground") for path in folders]
    split, rule = draw_lists([patient.group for patient in patients], 0.2, 0.1, seed or 0, fold, folds)
    intensity = Intensity("window", *window)
    settings = {
        "name": "chaos_ct",
        "seed": seed,
        "split": split,
        KEY: intensity.to_json(),
        "inputs": {p.group: [fingerprint(p.image), fingerprint(Path(str(p.label)))] for p in patients},
    }
    header = {
        "name": "chaos_ct",
        "modality": "CT",
        "channels": 1,
        "labels": LABELS,
        "provenance": {**_PROVENANCE, "split": rule},
    }
    with preparation(output, settings) as needed:
        if needed:
            with tempfile.TemporaryDirectory() as folder:
                volumes = [_with_volume(patient, Path(folder)) for patient in patients]
                prepare_volumes(output, volumes, split, header, seed or 0, intensity)
    return Path(output, "dataset.json")


def _with_volume(patient: Patient, folder: Path) -> Patient:
    files = by_order(patient.image, Path(str(patient.label)))
    return replace(patient, label=label_volume(patient.image, files, LIVER, folder / f"{patient.group}.nii.gz"))
