"""Prepare one's own volumes: a folder of images and one of masks, as users of nnU-Net have them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tskd.data.datalist import label_names
from tskd.data.io.intensity import KEY, Intensity, preset
from tskd.data.io.nifti import NIFTI
from tskd.data.prepare.inventory import Inventory
from tskd.data.prepare.pseudonyms import without_identities
from tskd.data.prepare.table import SECTIONS, case_names, read_table, refuse_shared_masks
from tskd.data.prepare.volume_checks import Patient, known_patients
from tskd.data.prepare.volume_writer import fingerprint, preparation, prepare_volumes
from tskd.data.split import FEWER_LISTS, draw_lists
from tskd.errors import TskdError
from tskd.files import composed


def prepare_volumes_masks(
    output: str | os.PathLike[str],
    labels: Sequence[str],
    images: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
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
    table: str | os.PathLike[str] | None = None,
    group_pattern: str | None = None,
    affine: Literal["sform", "qform"] | None = None,
) -> Path:
    """Prepare one's own volumes, one or more of a patient.

    Args:
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        labels: names of the structures, for mask values 1, 2, ...
        images: folder of NIfTI files and folders with a DICOM series each.
        masks: folder of NIfTI files, or of DICOM SEG objects, with the images' names.
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
        table: instead of both folders, a CSV file with the columns image, label (empty: unlabelled), and, if wanted,
            group (the patient) and split; paths are relative to the table (see `read_table`).
        group_pattern: regular expression that finds the patient in a volume's name without its endings: its first
            parenthesis, or all that it matches. Without it, and without a table's column, DICOM series of one
            PatientID are one patient's, and any other volume counts as a patient of its own.
        affine: "sform" or "qform", to be believed where the two forms of a NIfTI file disagree.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, a window that is not in order, or an output folder that holds something
            else.
    """
    scaling = preset(intensity) if window is None else Intensity("window", *window)
    names = label_names(labels)
    given = [source is not None for source in (images, masks, table)]
    if given not in ([True, True, False], [False, False, True]):
        raise TskdError("expected --images and --masks, or --table instead; found both, or neither complete. Give one.")
    inventory = Inventory()
    if table is not None:
        patients, sections = _from_table(Path(table), inventory)
    else:
        patients, sections = (
            _from_folders(Path(str(images)), Path(str(masks)), image_suffix, mask_suffix, inventory),
            {},
        )
    if unlabelled is not None:
        extra = _by_name(unlabelled, image_suffix)
        inventory.folder(unlabelled, extra.values())
        patients += [Patient("", path, case=code) for code, path in extra.items()]
    _refuse_other_segments(patients, labels)
    patients, groups = known_patients(patients, group_pattern)
    refuse_shared_masks((patient.image, patient.label, patient.group) for patient in patients if patient.label)
    if sections and fold is not None:
        raise TskdError(f"{table}: expected lists in the column split, or --fold; found both. Remove one of them.")
    if sections:
        split = {key: sorted({p.group for p in patients if sections.get(p.case) == key}) for key in SECTIONS}
        rule = "as the table says"
    else:
        labelled = (p.group for p in patients if p.label)
        split, rule = draw_lists(labelled, test, validation, seed, fold, folds, FEWER_LISTS)
    listed = [group for groups_of_list in split.values() for group in groups_of_list]
    if twice := sorted({group for group in listed if listed.count(group) > 1}):
        raise TskdError(
            f"split: expected each patient in one list, found {', '.join(twice[:8])} in two. One patient on both sides "
            "makes every measured number too good: move all scans of a patient to one list."
        )
    split["training"] = sorted({*split["training"], *({p.group for p in patients} - {*listed})})
    patients, split = without_identities(patients, split, inventory)
    header = {
        "name": name or Path(output).resolve().name,
        "modality": modality,
        "channels": 1,
        "labels": names,
        "provenance": {"source": "own volumes", "licence": "not stated", "split": rule, "groups": groups},
    }
    inputs = {p.case: [p.group, *(fingerprint(path) for path in (p.image, p.label) if path)] for p in patients}
    settings = {**header, "split": split, "seed": seed, "inputs": inputs, KEY: scaling.to_json(), "affine": affine}
    with preparation(output, settings) as needed:
        if needed:
            prepare_volumes(output, patients, split, header, seed, scaling, affine, inventory)
    return Path(output, "dataset.json")


def _from_folders(
    images: Path, masks: Path, image_suffix: str, mask_suffix: str, inventory: Inventory
) -> list[Patient]:
    volumes, truths = _by_name(images, image_suffix), _by_name(masks, mask_suffix, (*NIFTI, ".dcm"))
    if alone := sorted(volumes.keys() ^ truths.keys()):
        raise TskdError(
            f"{masks}: expected a mask for each image and an image for each mask, found none for "
            f"{', '.join(alone[:8])}. Give the endings of the names (--image-suffix, --mask-suffix), or put volumes "
            "without a mask into a folder of their own (--unlabelled)."
        )
    for folder, used in ((images, volumes), (masks, truths)):
        inventory.folder(folder, used.values())
    return [Patient("", path, truths[code], case=code) for code, path in volumes.items()]


def _refuse_other_segments(patients: Sequence[Patient], labels: Sequence[str]) -> None:
    """Refuse DICOM SEG objects whose segments have these names under other numbers, or more numbers than names."""
    from tskd.data.io.dicom_segmentation import segment_names, segmentation_file

    expected = {" ".join(name.lower().split()): number for number, name in enumerate(labels, start=1)}
    for patient in patients:
        file = None if patient.label is None else segmentation_file(patient.label)
        for number, name in ({} if file is None else segment_names(file)).items():
            if number > len(labels) or expected.get(" ".join(name.lower().split()), number) != number:
                raise TskdError(
                    f"{file}: expected segments 1 to {len(labels)} as {', '.join(labels)}, found segment {number} "
                    f"{name!r}. Give the names in the order of the segments: --labels"
                )


def _from_table(path: Path, inventory: Inventory) -> tuple[list[Patient], dict[str, str]]:
    """Return the scans that a table lists, and case -> list where it says so."""
    table = read_table(path)
    inventory.num_files = sum(1 + (row.label is not None) for row in table.rows) + len(table.unused)
    inventory.leave("columns of the table", table.unused)
    names = case_names([row.image for row in table.rows], _code)
    patients = [Patient(row.group, row.image, row.label, case=names[row.image]) for row in table.rows]
    return patients, {names[row.image]: row.section for row in table.rows if row.section}


def _code(path: Path) -> str:
    """Return the name of a volume without its endings."""
    name = composed(path.name)
    if path.is_dir():
        return name
    stem = name[:-3] if name.lower().endswith(".gz") else name
    return stem[:-4] if stem.lower().endswith((".nii", ".dcm")) else stem


def _by_name(folder: str | os.PathLike[str], suffix: str, endings: tuple[str, ...] = tuple(NIFTI)) -> dict[str, Path]:
    """Files with one of the endings, and DICOM folders, by their name without ending and suffix."""
    codes: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []:
        if not path.name.startswith(".") and (path.is_dir() or path.name.lower().endswith(endings)):
            code = _code(path).removesuffix(composed(suffix))
            if code in codes:
                raise TskdError(f"{path}: expected one volume for '{code}', found {codes[code].name} too. Remove one.")
            codes[code] = path
    if not codes:
        raise TskdError(f"{folder}: expected volumes (.nii, .nii.gz or DICOM folders), found none. Correct the path.")
    return codes
