"""Prepare ACDC, cine MR of the heart: two frames a patient, whose headers are wrong in one known way."""

import os
import re
from pathlib import Path
from typing import Any, Literal

from tskd.data.io.intensity import KEY, preset
from tskd.data.prepare.volume_checks import Patient
from tskd.data.prepare.volume_writer import fingerprint, preparation, prepare_volumes
from tskd.data.split import draw_lists, split_groups
from tskd.errors import TskdError

LABELS = {"0": "background", "1": "right ventricle", "2": "myocardium", "3": "left ventricle"}
VALIDATION = 0.1  # share of the training folder's patients

_PROVENANCE = {
    "source": "ACDC (O. Bernard et al., IEEE Trans. Med. Imaging 37(11):2514-2525, 2018)",
    "licence": "CC BY-NC-SA 4.0",
    "geometry": "the qform is believed: the sform of these files has 1 mm voxels",
}


def prepare_acdc(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
    intensity: Literal["percentiles", "body"] = "percentiles",
) -> Path:
    """Prepare ACDC: end diastole and end systole of each patient.

    The NIfTI files say two things of their voxels: the sform 1 x 1 x 1 mm, the qform the true spacing. The qform is
    taken, so that distances and volumes are in mm.

    Args:
        source: the archive as it is published, or its folder with training/ and testing/ (or one of them), each with
            patientNNN/patientNNN_frameMM.nii.gz and patientNNN_frameMM_gt.nii.gz.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: draws the lists that the source does not give (validation: a tenth; test without testing/: a fifth), and
            orders the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 over all patients instead: its test list is that fold.
        folds: number of folds when `fold` is given.
        intensity: how volumes are scaled: "percentiles" or "body" (see `Intensity`).

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: frames or masks missing, or an output folder that holds something else.
    """
    scans = _scans(Path(source))
    split, rule = _split(scans, seed or 0, fold, folds)
    scaling = preset(intensity)
    settings = {
        "name": "acdc",
        "seed": seed,
        "split": split,
        KEY: scaling.to_json(),
        "inputs": {scan.case: [fingerprint(scan.image), fingerprint(str(scan.label))] for scan in scans},
    }
    header: dict[str, Any] = {
        "name": "acdc",
        "modality": "MR",
        "channels": 1,
        "labels": LABELS,
        "provenance": {**_PROVENANCE, "split": rule},
    }
    with preparation(output, settings) as needed:
        if needed:
            prepare_volumes(output, scans, split, header, seed or 0, scaling, affine="qform")
    return Path(output, "dataset.json")


def _scans(source: Path) -> list[Patient]:
    """Return the frames that have a mask; the whole series (_4d) has none."""
    frames = [path for path in sorted(source.rglob("patient*_frame*.nii*")) if "_gt" not in path.name]
    scans, missing = [], []
    for image in frames:
        match = re.fullmatch(r"((patient\d+)_frame\d+)(\.nii(?:\.gz)?)", image.name)
        if match is None:
            continue
        mask = image.with_name(f"{match[1]}_gt{match[3]}")
        missing += [] if mask.is_file() else [mask.name]
        scans.append(Patient(match[2], image, mask, match[1]))
    if not scans or missing:
        defect = f"no {', '.join(missing[:3])}" if missing else "none"
        raise TskdError(
            f"{source}: expected patientNNN/patientNNN_frameMM.nii.gz with a mask patientNNN_frameMM_gt.nii.gz each, "
            f"found {defect}. Unpack the archive again."
        )
    return scans


def _split(scans: list[Patient], seed: int, fold: int | None, folds: int) -> tuple[dict[str, list[str]], str]:
    test = sorted({scan.group for scan in scans if "testing" in scan.image.parts})
    patients = sorted({scan.group for scan in scans})
    if fold is not None or not test or len(test) == len(patients):
        return draw_lists(patients, 0.2, VALIDATION, seed, fold, folds)
    train = sorted(set(patients) - set(test))
    validation, training = split_groups(train, (max(round(VALIDATION * len(train)), 1), None), seed)
    rule = f"test is the source's folder testing; validation drawn from training, seed {seed}"
    return {"training": training, "validation": validation, "test": test}, rule
