"""Make a dataset folder (slices/, volumes/, dataset.json) from volumes of patients."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tskd import __version__
from tskd.data import datalist
from tskd.data.io.intensity import KEY, PERCENTILES, Intensity
from tskd.data.io.nifti import load_label, load_volume, to_lps, write_volume
from tskd.data.io.slices import write_slices
from tskd.data.prepare.inventory import Inventory
from tskd.data.prepare.volume_checks import Patient, inspect_volumes
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


def prepare_volumes(
    output: str | os.PathLike[str],
    patients: Sequence[Patient],
    split: Mapping[str, Sequence[str]],
    header: Mapping[str, Any],
    seed: int = 0,
    intensity: Intensity = PERCENTILES,
    affine: str | None = None,
    inventory: Inventory | None = None,
) -> Path:
    """Write slices of the training patients, volumes of the others, and last of all dataset.json.

    Args:
        output: folder for the data set; written into as it is (see `preparation`).
        patients: the scans' files, one or more of a patient; patients that are in no list of `split` are left out.
        split: "training", "validation", "test" -> patient codes. Slices of training patients without a label, or
            with 255 all over, go to `unlabelled`. Scans without a label of the other patients are left out.
        header: the keys name, modality, channels, labels and provenance of dataset.json.
        seed: seed of the order of `training`.
        intensity: how volumes are scaled.
        affine: "sform" or "qform", to be believed where a file's two forms disagree.
        inventory: what was found beside the scans, for the provenance.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: a file that cannot be read, an image and a label that do not fit, an unknown patient, the same scan
            under two codes.
    """
    cases = [patient.case or patient.group for patient in patients]
    if len(set(cases)) < len(cases):
        raise TskdError(f"patients: expected each code once, found {sorted(cases)}. Rename them.")
    known = {patient.group for patient in patients}
    missing = sorted({group for groups in split.values() for group in groups} - known)
    if missing:
        raise TskdError(f"split: expected patients among {', '.join(sorted(known))}, found {', '.join(missing)}.")
    home = {group: name for name, groups in split.items() for group in groups}
    chosen = {name: [p for group in split[name] for p in patients if p.group == group] for name in split}
    inventory = inventory or Inventory()
    for name in ("validation", "test"):
        without = [p for p in chosen[name] if p.label is None]
        chosen[name] = [p for p in chosen[name] if p.label is not None]
        inventory.leave("scans without a mask of validation and test patients", [p.image.name for p in without])
        if gone := sorted(set(split[name]) - {p.group for p in chosen[name]}):
            raise TskdError(f"patient {gone[0]}: expected a label, as validation and test need one, found none.")
    scans = [p for name in split for p in chosen[name]]
    inspect_volumes(scans, home, header["labels"], intensity, affine, inventory)
    lists: dict[str, list[dict[str, str]]] = {name: [] for name in datalist.LISTS}
    for patient in chosen["training"]:
        entries, blank = _write_slices(Path(output), patient, intensity, affine)
        for entry in entries:
            lists["training" if "label" in entry else "unlabelled"].append(entry)
        inventory.slices += len(entries)
        inventory.blank_slices += blank
        if not entries:
            inventory.leave("training scans of which every slice is blank", [patient.image.name])
    for name in ("validation", "test"):
        lists[name] = [_copy_volume(Path(output), patient, affine) for patient in chosen[name]]
    lists["training"] = fair_order(lists["training"], seed)
    provenance = {
        **header["provenance"],
        "tool": f"tskd {__version__}",
        "seed": seed,
        **({"files": str(inventory)} if inventory.num_files else {}),
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
    refused = before is not None and not before["finished"] and names == [RECORD]  # its input was: nothing is there
    if names and not refused and not (same and all(name in _OURS or _DRAFT.fullmatch(name) for name in names)):
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
    """Return sha256 of a file, or of the files of a folder in the order of their names."""
    digest = hashlib.sha256()
    path = Path(path)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _read_record(record: Path) -> dict[str, Any] | None:
    """Return the record of an earlier preparation; None if the file is something else."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return content if isinstance(content, dict) and {"settings", "finished"} <= content.keys() else None


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


def _write_slices(
    output: Path, patient: Patient, intensity: Intensity, affine: str | None
) -> tuple[list[dict[str, str]], int]:
    """Return the entries, and how many slices were left out as one grey everywhere."""
    image, matrix = load_volume(patient.image, affine)
    label = None
    if patient.label is not None:
        label = to_lps(load_label(patient.label, image.shape, matrix, affine), matrix)[0]
    scaled = intensity.scale(to_lps(image, matrix)[0])
    entries = write_slices(output, patient.group, scaled, label, patient.case or None)
    return entries, scaled.shape[2] - len(entries)


def _copy_volume(output: Path, patient: Patient, affine: str | None) -> dict[str, str]:
    """Rewrite image and label with clean headers; original intensities and orientation."""
    assert patient.label is not None
    case = patient.case or patient.group
    image, matrix = load_volume(patient.image, affine)
    label = load_label(patient.label, image.shape, matrix, affine)
    entry = {"image": f"volumes/{case}.nii.gz", "label": f"volumes/{case}_label.nii.gz"}
    write_volume(output / entry["image"], image, matrix)
    write_volume(output / entry["label"], label, matrix)
    return {**entry, "group": patient.group, "case": case}
