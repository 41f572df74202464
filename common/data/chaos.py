"""Prepare CHAOS abdominal MR (T2-SPIR): four organs, patient-grouped split."""

import os
from pathlib import Path

from common.data.intensity import KEY, preset
from common.data.prepare import Patient, fingerprint, preparation, prepare_volumes
from common.data.split import choose_lists
from common.errors import TskdError

LABELS = {"0": "background", "1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"}
TEST, VALIDATION = ("5", "13", "21", "36"), ("8",)  # the split our results are reported on; the rest is training

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
    intensity: str = "percentiles",
) -> Path:
    """Prepare CHAOS MR T2-SPIR from NIfTI: slices of the training subjects, volumes of the others, dataset.json.

    Args:
        source: folder with images/image_<subject>.nii.gz and masks/label_<subject>.nii.gz.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: None keeps the fixed split (test 5, 13, 21, 36; validation 8; the rest training); an integer draws other
            subjects into lists of the same sizes. It also orders the training list (None: 0).
        fold: cross-validation fold 0 to `folds` - 1: its test set is that fold, one further subject is validation.
        folds: number of folds when `fold` is given.
        intensity: how volumes are scaled: "percentiles" or "body" (see `Intensity`).

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: subjects or masks missing, or an output folder that holds something else.
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
            prepare_volumes(output, patients, split, header, seed or 0, preset(intensity))
    return Path(output, "dataset.json")


def _subjects(source: Path) -> list[Patient]:
    images = sorted(source.glob("images/image_*.nii.gz"))
    if not images:
        raise TskdError(
            f"{source}: expected images/image_<subject>.nii.gz, found none. Give the folder that has images/."
        )
    patients = []
    for image in images:
        group = image.name.removeprefix("image_").removesuffix(".nii.gz")
        patients.append(Patient(group, image, source / "masks" / f"label_{group}.nii.gz"))
    missing = [str(patient.label) for patient in patients if not Path(str(patient.label)).is_file()]
    if missing:
        raise TskdError(f"{source}: expected a mask for each image, found no {', '.join(missing)}. Add the files.")
    return patients
