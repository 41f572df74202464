"""Make a dataset folder (slices/, volumes/, dataset.json) from volumes of patients."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tskd import __version__
from tskd.data import datalist
from tskd.data.io.intensity import KEY, PERCENTILES, Intensity
from tskd.data.io.nifti import has_orientation, load_label, load_volume, to_lps, write_volume
from tskd.data.io.slices import write_slices
from tskd.data.split import fair_order
from tskd.errors import TskdError
from tskd.files import write_json

RECORD = "preparation.json"  # what was prepared, and whether it was finished
_OURS = (
    "slices",
    "volumes",
    "images",
    "labels",
    "labels_2nd",
    "raw",
    "dataset.json",
    RECORD,
)
_DRAFT = re.compile(rf"\.draft-\d+-(dataset\.json|{re.escape(RECORD)})")  # of a file that was never finished


@dataclass(frozen=True)
class Patient:
    """One patient's files: code, image (NIfTI file or DICOM folder), label volume (NIfTI) if there is one."""

    group: str
    image: Path
    label: Path | None = None


def prepare_volumes(
    output: str | os.PathLike[str],
    patients: Sequence[Patient],
    split: Mapping[str, Sequence[str]],
    header: Mapping[str, Any],
    seed: int = 0,
    intensity: Intensity = PERCENTILES,
) -> Path:
    """Write slices of the training patients, volumes of the others, and last of all dataset.json.

    Args:
        output: folder for the data set; written into as it is (see `preparation`).
        patients: the patients' files; patients that are in no list of `split` are left out.
        split: "training", "validation", "test" -> patient codes. Slices of training patients without a label, or
            with 255 all over, go to `unlabelled`.
        header: the keys name, modality, channels, labels and provenance of dataset.json.
        seed: seed of the order of `training`.
        intensity: how volumes are scaled.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: a file that cannot be read, an image and a label that do not fit, an unknown patient, the same scan
            under two codes.
    """
    known = {patient.group: patient for patient in patients}
    if len(known) < len(patients):
        raise TskdError(f"patients: expected each code once, found {sorted(p.group for p in patients)}. Rename them.")
    missing = sorted({group for groups in split.values() for group in groups} - known.keys())
    if missing:
        raise TskdError(f"split: expected patients among {', '.join(sorted(known))}, found {', '.join(missing)}.")
    lists: dict[str, list[dict[str, str]]] = {name: [] for name in datalist.LISTS}
    _inspect([known[group] for groups in split.values() for group in groups], split["training"])
    for group in split["training"]:
        for entry in _write_slices(Path(output), known[group], intensity):
            lists["training" if "label" in entry else "unlabelled"].append(entry)
    for name in ("validation", "test"):
        lists[name] = [_copy_volume(Path(output), known[group]) for group in split[name]]
    lists["training"] = fair_order(lists["training"], seed)
    provenance = {
        **header["provenance"],
        "tool": f"tskd {__version__}",
        "seed": seed,
        "scaling": "slices are scaled as `intensity` says and stored as 8-bit PNG; volumes keep their intensities",
    }
    dataset_file = Path(output, "dataset.json")
    datalist.write(dataset_file, {**header, KEY: intensity.to_json(), **lists, "provenance": provenance})
    return dataset_file


@contextmanager
def preparation(output: str | os.PathLike[str], settings: Mapping[str, Any]) -> Iterator[bool]:
    """Guard a preparation against repetition, mixing and interruption.

    Yields True if the body has to do the work, False if `output` holds the finished result of the same settings. What
    an interrupted run of the same settings left behind is removed first. The record lies in `preparation.json`.

    Args:
        output: folder for the data set; made if missing.
        settings: everything that decides the result, as JSON values.

    Raises:
        TskdError: the folder holds anything else.
    """
    folder, record = Path(output), Path(output, RECORD)
    settings = json.loads(json.dumps({**settings, "layout": 1}))
    if folder.exists() and not folder.is_dir():
        raise TskdError(f"{folder}: expected a folder or nothing, found a file. Choose another output folder.")
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in folder.iterdir())
    before = _read_record(record) if RECORD in names else None
    same = before is not None and before["settings"] == settings
    if before is not None and same and before["finished"] and _complete(folder):
        yield False
        return
    if names and not (same and all(name in _OURS or _DRAFT.fullmatch(name) for name in names)):
        raise TskdError(
            f"{folder}: expected an empty folder or the same preparation, found {', '.join(names[:5])}"
            f"{_difference(before, settings)}. Choose another output folder, or delete this one."
        )
    for name in names:
        if Path(folder, name).is_dir():
            shutil.rmtree(Path(folder, name))
        elif name != RECORD:
            Path(folder, name).unlink()
    write_json(record, {"finished": False, "settings": settings})
    yield True
    write_json(record, {"finished": True, "settings": settings})


def fingerprint(path: str | Path) -> str:
    """sha256 of a file, or of the files of a folder in the order of their names."""
    digest = hashlib.sha256()
    path = Path(path)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _read_record(record: Path) -> dict[str, Any] | None:
    """The record of an earlier preparation; None if the file is something else."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"settings", "finished"} <= found.keys() else None


def _difference(before: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> str:
    if before is None:
        return ""
    old = before["settings"]
    keys = [key for key in sorted(old.keys() | settings.keys()) if old.get(key) != settings.get(key)]
    return f" of a preparation with other {', '.join(keys)}" if keys else " beside a preparation"


def _complete(folder: Path) -> bool:
    """Whether dataset.json and all the files that it lists are there."""
    if not Path(folder, "dataset.json").is_file():
        return False
    listed = [entry for _, entry in datalist.named_entries(datalist.read(folder / "dataset.json"))]
    return all(Path(folder, entry[key]).is_file() for entry in listed for key in datalist.FILES if key in entry)


def _inspect(patients: Iterable[Patient], training: Sequence[str]) -> None:
    """Before anything is written: refuses a scan under two codes, and warns of what may be meant otherwise."""
    first: dict[str, str] = {}
    copies, across, unplaced = [], [], []
    for patient in patients:
        image, affine = to_lps(*load_volume(patient.image))
        other = first.setdefault(hashlib.sha256(image.tobytes()).hexdigest(), patient.group)
        copies += [f"{other} and {patient.group}"] if other != patient.group else []
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if patient.group in training and spacing.max() > 2 * spacing[2]:
            across.append(f"{patient.group} ({' x '.join(f'{size:.2g}' for size in spacing)} mm)")
        unplaced += [] if has_orientation(patient.image) else [patient.group]
    if copies:
        raise TskdError(
            "patients: expected each scan under one code, as a copy in another list makes every measured number too "
            f"good; found the same voxels as {'; '.join(copies[:5])}. Remove one of the two."
        )
    warn = logging.getLogger(__name__).warning
    if across:  # slices are axial
        warn(
            "volumes are cut into axial slices, across the thick slices of %d sagittal or coronal volumes: %s",
            len(across),
            ", ".join(across[:5]),
        )
    if unplaced:
        warn(
            "%d volumes do not say how they lie (no sform, no qform): their first axis is taken to run to the "
            "patient's left, the second to the front, the third upwards. Compare right and left organs: %s",
            len(unplaced),
            ", ".join(unplaced[:5]),
        )


def _write_slices(output: Path, patient: Patient, intensity: Intensity) -> list[dict[str, str]]:
    image, affine = load_volume(patient.image)
    label = None if patient.label is None else to_lps(load_label(patient.label, image.shape, affine), affine)[0]
    return write_slices(output, patient.group, intensity.scale(to_lps(image, affine)[0]), label)


def _copy_volume(output: Path, patient: Patient) -> dict[str, str]:
    """Rewrite image and label with clean headers; original intensities and orientation."""
    if patient.label is None:
        raise TskdError(f"patient {patient.group}: expected a label, as validation and test need one, found none.")
    image, affine = load_volume(patient.image)
    label = load_label(patient.label, image.shape, affine)
    entry = {"image": f"volumes/{patient.group}.nii.gz", "label": f"volumes/{patient.group}_label.nii.gz"}
    write_volume(output / entry["image"], image, affine)
    write_volume(output / entry["label"], label, affine)
    return {**entry, "group": patient.group, "case": patient.group}
