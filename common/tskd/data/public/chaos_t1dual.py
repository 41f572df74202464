"""Prepare CHAOS abdominal MR, T1-DUAL: one of its two phases, or both as the colours of a picture."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tskd.data.io.dicom_series import series_files
from tskd.data.io.image_files import write_picture
from tskd.data.io.intensity import KEY, Intensity, preset
from tskd.data.io.nifti import load_label, load_volume, to_lps
from tskd.data.prepare.image_checks import Picture, inspect_images
from tskd.data.prepare.image_writer import prepare_images
from tskd.data.prepare.volume_checks import Patient
from tskd.data.prepare.volume_writer import fingerprint, preparation, prepare_volumes
from tskd.data.public.chaos import IN_WORDS, LABELS, ORGANS, TEST, VALIDATION
from tskd.data.public.slice_masks import by_name, by_order, label_volume
from tskd.data.split import choose_lists
from tskd.errors import TskdError

PHASES = {"in": "InPhase", "out": "OutPhase"}

_PROVENANCE = {
    "source": "CHAOS abdominal MR, T1-DUAL (A. E. Kavur et al., Medical Image Analysis 69:101950, 2021), "
    "doi 10.5281/zenodo.3431873",
    "licence": "CC BY-NC-SA 4.0",
}
_COLOURS = "red is in phase, green out of phase, blue in phase; slices of every list"


def prepare_chaos_t1dual(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    phase: Literal["in", "out", "both"] = "in",
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
    intensity: Literal["percentiles", "body"] = "percentiles",
) -> Path:
    """Prepare CHAOS MR T1-DUAL.

    Args:
        source: the archive as it is published, or a folder in it that holds SUBJECT/T1DUAL/ with DICOM_anon/InPhase/,
            DICOM_anon/OutPhase/ and Ground/.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        phase: "in" or "out": slices and volumes of that phase, 1 channel. "both": colour slices in every list (add
            images_2d.json; 3 channels): red and blue in phase, green out of phase.
        seed: None keeps the fixed split of chaos-mr; an integer draws other subjects into lists of the same sizes. It
            also orders the training list (None: 0).
        fold: cross-validation fold 0 to `folds` - 1: its test set is that fold, one further subject is validation.
        folds: number of folds when `fold` is given.
        intensity: how volumes are scaled: "percentiles" or "body" (see `Intensity`).

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: subjects, phases or masks missing, masks that do not fit, or an output folder that holds something
            else.
    """
    sequences = sorted(path for path in Path(source).rglob("T1DUAL") if (path / "Ground").is_dir())
    if not sequences:
        raise TskdError(
            f"{source}: expected <subject>/T1DUAL/ with DICOM_anon/InPhase/, DICOM_anon/OutPhase/ and Ground/ below "
            "it, found none. Give the folder MR of the training archive."
        )
    subjects = {sequence.parent.name: sequence for sequence in sequences}
    split, rule = choose_lists(subjects, TEST, VALIDATION, seed, fold, folds)
    header: dict[str, Any] = {
        "name": "chaos_t1dual" if phase == "both" else f"chaos_t1dual_{phase}",
        "modality": "MR",
        "channels": 1,
        "labels": LABELS,
        "provenance": {**_PROVENANCE, "split": rule},
    }
    scaling = preset(intensity)
    with tempfile.TemporaryDirectory() as folder:
        if phase == "both":
            pictures = [
                p for name, sequence in subjects.items() for p in _colours(name, sequence, Path(folder), scaling)
            ]
            findings = inspect_images(pictures, len(LABELS) - 1, channels=3)
            header["provenance"]["channels"] = _COLOURS
            return prepare_images(output, pictures, findings, split, header, seed or 0)
        patients = [Patient(name, _series(sequence, phase), sequence / "Ground") for name, sequence in subjects.items()]
        settings = {
            "name": header["name"],
            "seed": seed,
            "split": split,
            KEY: scaling.to_json(),
            "inputs": {p.group: [fingerprint(p.image), fingerprint(Path(str(p.label)))] for p in patients},
        }
        with preparation(output, settings) as needed:
            if needed:
                volumes = [replace(p, label=_label(subjects[p.group], Path(folder))) for p in patients]
                prepare_volumes(output, volumes, split, header, seed or 0, scaling)
    return Path(output, "dataset.json")


def _series(sequence: Path, phase: str) -> Path:
    series = sequence / "DICOM_anon" / PHASES[phase]
    if not series.is_dir():
        raise TskdError(f"{series}: expected a folder with the DICOM files of this phase, found none. Add it.")
    return series


def _label(sequence: Path, folder: Path) -> Path:
    """Return the masks as a volume: named after the files of one phase, or in their order."""
    ground, stems = sequence / "Ground", {path.stem for path in (sequence / "Ground").glob("*.png")}
    series = [_series(sequence, phase) for phase in PHASES if (sequence / "DICOM_anon" / PHASES[phase]).is_dir()]
    named = next((one for one in series if {path.stem for path in series_files(one)} <= stems), None)
    target = folder / f"{sequence.parent.name}_label.nii.gz"
    if named is not None:
        return label_volume(named, by_name(named, ground), ORGANS, target, IN_WORDS)
    return label_volume(series[0], by_order(series[0], ground), ORGANS, target, IN_WORDS)


def _colours(subject: str, sequence: Path, folder: Path, scaling: Intensity) -> Sequence[Picture]:
    """Return the slices of a subject as RGB pictures, but for those of one grey everywhere."""
    volumes, affines = zip(*(load_volume(_series(sequence, phase)) for phase in PHASES), strict=True)
    if volumes[0].shape != volumes[1].shape or not np.allclose(affines[0], affines[1], atol=1e-2):
        raise TskdError(
            f"{sequence}: expected both phases on one grid, found {volumes[0].shape} and {volumes[1].shape} at "
            f"{affines[0][:3, 3].round(1).tolist()} and {affines[1][:3, 3].round(1).tolist()}. Take one phase."
        )
    label = load_label(_label(sequence, folder), volumes[0].shape, affines[0])
    label = to_lps(label, affines[0])[0]
    first, second = (np.rint(255 * scaling.scale(to_lps(volume, affines[0])[0])).astype(np.uint8) for volume in volumes)
    pictures = []
    for k in range(label.shape[2]):
        pixels = np.stack([channel[:, :, k].T for channel in (first, second, first)], axis=-1)
        if pixels.min() == pixels.max():
            continue
        case = f"{subject}_{k:03d}"
        image, mask = folder / "images" / f"{case}.png", folder / "masks" / f"{case}.png"
        write_picture(image, pixels)
        write_picture(mask, label[:, :, k].T)
        pictures.append(Picture(case, subject, image, mask))
    return pictures
