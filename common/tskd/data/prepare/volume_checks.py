"""Look at every volume and label before anything is written: the same checks as of pictures, and those of geometry."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from nibabel.orientations import aff2axcodes

from tskd.data.datalist import IGNORE
from tskd.data.io.dicom_segmentation import segmentation_file
from tskd.data.io.dicom_series import patient_id, unused_files
from tskd.data.io.intensity import Intensity
from tskd.data.io.nifti import has_orientation, load_label, load_volume, to_lps
from tskd.data.plausibility import EMPTY_MASKS, Shown, cut_warnings, intensity_range, unit_warnings, warn
from tskd.data.prepare.inventory import Inventory
from tskd.data.prepare.patients import group_in_name, refuse_alike, same_spelling, warn_of_several
from tskd.errors import TskdError

UNKNOWN_PATIENTS = "unknown: each volume counts as a patient of its own"


@dataclass(frozen=True)
class Patient:
    """A scan's files: patient code, image (NIfTI file or DICOM folder), label volume (NIfTI) if there is one.

    `case` names the scan where a patient has several; the patient's code is the name otherwise.
    """

    group: str
    image: Path
    label: Path | None = None
    case: str = ""


def known_patients(scans: Sequence[Patient], pattern: str | None) -> tuple[list[Patient], str]:
    """Give every scan its patient, and say in words how.

    Args:
        scans: with a group where a table says it, and with a case.
        pattern: as `group_in_name` takes it, for the others.

    Raises:
        TskdError: a name without a patient, or codes that are spellings of one.
    """
    said = {scan.case for scan in scans if scan.group}
    how = ["column of the table"] if said else []
    if pattern is not None:
        scans = [replace(scan, group=scan.group or group_in_name(scan.case, pattern, scan.image)) for scan in scans]
        how += [f"found in the file names by {pattern}"]
    elif len(said) < len(scans):
        scans, by_id = _by_patient_id(scans)
        how += [f"DICOM's PatientID is the same in {by_id} series as in another"] if by_id else []
        how += [UNKNOWN_PATIENTS if not how else f"of the others {UNKNOWN_PATIENTS}"]
        warn_of_several({scan.case: scan.group for scan in scans})
    if said or pattern is not None:
        refuse_alike(scan.group for scan in scans)
    return list(scans), "; ".join(how)


def _by_patient_id(scans: Sequence[Patient]) -> tuple[list[Patient], int]:
    """Give DICOM series of one PatientID the first one's code, unless all series have the same (as after removal).

    Spellings of one PatientID (`P03`, `p3`) count as it: in doubt two series are kept together.
    """
    ids = {scan.case: same_spelling(patient_id(scan.image)) if scan.image.is_dir() else "" for scan in scans}
    distinct = {value for value in ids.values() if value}
    first: dict[str, str] = {}
    grouped = []
    for scan in scans:
        known = ids[scan.case] if len(distinct) > 1 else ""
        code = first.setdefault(known, scan.case) if known else scan.case
        grouped.append(replace(scan, group=scan.group or code))
    return grouped, sum(scan.group != scan.case and not old.group for scan, old in zip(grouped, scans, strict=True))


def inspect_volumes(
    scans: Sequence[Patient],
    home: Mapping[str, str],
    labels: Mapping[str, str],
    intensity: Intensity,
    affine: str | None,
    inventory: Inventory,
) -> None:
    """Read every file once.

    Args:
        scans: image and label files.
        home: patient -> list.
        labels: names of the classes.
        intensity: how volumes are scaled, to see whether structures are cut off.
        affine: as `load_volume` takes it.
        inventory: gets the files of DICOM folders that are no images.

    Raises:
        TskdError: a file that cannot be used, a scan under two codes, values without a name, 255 that is the structure
            in one label and "no label" in another, or intensities that are no numbers. Each file has a line.
    """
    problems: list[str] = []
    first: dict[str, str] = {}
    copies, across, unplaced, turned = [], [], [], []
    white: dict[str, Path] = {}
    ranges: dict[str, tuple[float, float]] = {}
    shown = Shown()
    for scan in scans:
        case = scan.case or scan.group
        try:
            stored, stored_affine = load_volume(scan.image, affine)
            refuse_odd_volume(scan.image, stored)
            image, matrix = to_lps(stored, stored_affine)
            label = None
            if scan.label is not None:
                label = to_lps(_label(scan, stored, stored_affine, affine, len(labels), white), stored_affine)[0]
                turned += [case] if _turned(scan.label, affine, stored_affine) else []
        except TskdError as error:
            problems.append(str(error))
            continue
        if scan.image.is_dir():
            inventory.leave("in DICOM folders, no images of the series", unused_files(scan.image))
        earlier = first.setdefault(hashlib.sha256(image.tobytes()).hexdigest(), case)
        copies += [f"{earlier} and {case}"] if earlier != case else []
        ranges[case] = intensity_range(image)
        if label is not None:
            shown.add(home.get(scan.group, "training"), scan.group, label, intensity.scale(image))
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if home.get(scan.group) == "training" and spacing.max() > 2 * spacing[2]:
            across.append(f"{case} ({' x '.join(f'{size:.2g}' for size in spacing)} mm)")
        unplaced += [] if has_orientation(scan.image) else [case]
    if len(white) > 1:
        (here, one), (there, two) = list(white.items())[:2]
        problems.append(
            f"masks: expected one meaning of 255, found it as {here} in {one.name} and as {there} in {two.name}. Write "
            "class indices in all of them."
        )
    if shown.labels and not shown.entries and not problems:
        problems.append(EMPTY_MASKS)
    if problems:
        more = [f"and {len(problems) - 20} more"] * (len(problems) > 20)
        raise TskdError("\n  - ".join([f"{len(problems)} problem{'s' * (len(problems) > 1)}", *problems[:20], *more]))
    if copies:
        raise TskdError(
            "patients: expected each scan under one code, as a copy in another list makes every measured number too "
            f"good; found the same voxels as {'; '.join(copies[:5])}. Remove one of the two."
        )
    warn([*_position_warnings(across, unplaced, turned), *unit_warnings(ranges)])
    warn(cut_warnings(shown, labels, f"{intensity.kind} {intensity.low:g} to {intensity.high:g}"))


def refuse_odd_volume(where: str | Path, array: np.ndarray) -> None:
    """Refuse a volume without voxels, of one value, or with values that are no numbers.

    Raises:
        TskdError: with what was found.
    """
    if array.size == 0:
        raise TskdError(f"{where}: expected voxels, found shape {array.shape}. Copy the file again.")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise TskdError(f"{where}: expected finite intensities, found NaN or infinity. Replace them.")
    if low == high:
        raise TskdError(f"{where}: expected an image, found the value {low} everywhere. Copy it again, or remove it.")


def _turned(label: Path, affine: str | None, image_affine: np.ndarray) -> bool:
    """Whether a NIfTI label has its axes in another order or direction than its image; a DICOM SEG has no axes."""
    if segmentation_file(label) is not None:
        return False
    return aff2axcodes(load_volume(label, affine)[1]) != aff2axcodes(image_affine)


def refuse_unplaced_pair(image: Path, label: Path) -> None:
    """Refuse a pair of which only one file has an orientation: the two may be mirrored.

    Raises:
        TskdError: naming the one without.
    """
    placed = {path: has_orientation(path) for path in (image, label)}
    if placed[image] != placed[label]:
        without, oriented = (image, label) if placed[label] else (label, image)
        raise TskdError(
            f"{without}: expected a sform or qform as {oriented.name} has, found neither: how the two lie on "
            "each other cannot be known. Give both files one header."
        )


def white_meaning(values: set[int], whole_slices: bool) -> str | None:
    """Return what 255 is in a label: "the structure", "a pixel without a label", or None where there is none."""
    drawn = values - {0}
    if IGNORE not in drawn:
        return "a pixel without a label (1 is the structure)" if drawn == {1} else None
    return "the structure" if drawn == {IGNORE} and not whole_slices else "a pixel without a label"


def _label(
    scan: Patient, image: np.ndarray, image_affine: np.ndarray, affine: str | None, classes: int, white: dict[str, Path]
) -> np.ndarray:
    """Read a scan's label on the grid of its image; `white` gathers what 255 means in it."""
    assert scan.label is not None
    refuse_unplaced_pair(scan.image, scan.label)
    label = load_label(scan.label, image.shape, image_affine, affine)
    values = {int(value) for value in np.unique(label)}
    wrong = sorted(value for value in values if value >= classes and value != IGNORE)
    if wrong:
        raise TskdError(
            f"{scan.label}: expected class indices 0 to {classes - 1} or {IGNORE} (no label), found {wrong[:8]}. Name "
            "as many structures as there are, or correct the label."
        )
    whole = set_aside_by_slice(label)
    meaning = white_meaning(values, whole)
    if meaning == "the structure":
        raise TskdError(
            f"{scan.label}: expected class indices 0 to {classes - 1}, found 0 and 255 side by side in a slice: white "
            "as the structure would be read as a pixel without a label. Write 1 for 255."
        )
    return label


def set_aside_by_slice(label: np.ndarray) -> bool:
    """Return whether 255 fills whole slices (or rows, or columns) across some axis: what nobody annotated."""
    empty = label == IGNORE
    axes = range(label.ndim)
    across = [tuple(axis for axis in axes if axis != kept) for kept in axes]
    return any((empty.all(axis=plane) | ~empty.any(axis=plane)).all() for plane in across)


def _position_warnings(across: Sequence[str], unplaced: Sequence[str], turned: Sequence[str]) -> list[str]:
    lines = []
    if across:  # slices are axial
        lines.append(
            "volumes are cut into axial slices, across the thick slices of "
            f"{len(across)} sagittal or coronal volumes: {', '.join(across[:5])}"
        )
    if turned:
        lines.append(
            f"{len(turned)} labels have their axes in another order or direction than their images, and are turned as "
            f"their headers say. Compare some by eye: {', '.join(turned[:5])}"
        )
    if unplaced:
        lines.append(
            f"{len(unplaced)} volumes do not say how they lie (no sform, no qform): their first axis is taken to run "
            "to the patient's left, the second to the front, the third upwards. Compare right and left organs: "
            + ", ".join(unplaced[:5])
        )
    return lines
