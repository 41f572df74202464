"""How a study names its files: two folders where these suffice, else a table of image, mask, patient and list."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tskd.data.prepare.nnunet import SPLITS, read_fold
from tskd.data.prepare.patients import has_code, refuse_alike, same_spelling
from tskd.data.split import share_out
from tskd.new_study import names
from tskd.new_study.tree import Case, Tree

VALIDATION = 0.1  # share of the training patients, where folders say what is for testing


def patients(tree: Tree) -> tuple[dict[str, str], str]:
    """Return path of an image -> patient, and whose names say who it is: "sub-folders" or "files".

    Empty, both, where no name does.
    """
    cases = tree.cases
    ids = {case.image.patient for case in cases}
    if len(ids) > 1 and "" not in ids:
        return {}, ""  # `tskd prepare` compares them and writes none of them anywhere
    folders = [names.kept_parents(case.image.relative) for case in cases]
    if tree.cases[0].image.kind != "series" and all(folders) and 1 < len({each[0] for each in folders}) < len(cases):
        return {str(case.image.path): each[0] for case, each in zip(cases, folders, strict=True)}, "sub-folders"
    shared = names.patients([case.image.stem for case in cases])
    codes = set(shared.values())
    if len(codes) < 2 and not any(map(has_code, codes)):  # one stem is the data set's name, but p01 is a patient
        return {}, ""
    return {str(case.image.path): shared.get(case.image.stem, case.image.stem) for case in cases}, "files"


def too_few(groups: dict[str, str], named_by: str) -> str:
    """Return what to do where the patients are too few for three lists, with what was taken for a patient."""
    codes = sorted(set(groups.values()))
    shown = ", ".join(codes[:3]) + ", ..." * (len(codes) > 3)
    if named_by == "sub-folders":
        return (
            f"Each sub-folder ({shown}) was taken as a patient: put all files into one folder if that is wrong, or "
            "add patients."
        )
    if named_by == "files":
        return (
            f"Files with names alike were taken as one patient's ({shown}): rename them if that is wrong, or add "
            "patients."
        )
    return "Add patients."


def lists(tree: Tree, groups: dict[str, str], remedy: str) -> dict[str, str]:
    """Return path of an image -> list, where folders say what is for testing; empty where the lists are to be drawn.

    Args:
        tree: images and masks.
        groups: as `patients` returns it.
        remedy: what to do where the training folder has too few patients.
    """
    named = {case.section for case in tree.cases if case.mask}
    if "training" not in named or not named & {"test", "validation"}:
        return {}
    test = "test" if "test" in named else "validation"
    chosen = {str(case.image.path): "test" if case.section == test else (case.section or "training")
              for case in tree.cases if case.mask}  # fmt: skip
    return _complete(tree, groups, chosen, remedy)


def nnunet_lists(root: Path, tree: Tree, groups: dict[str, str], remedy: str) -> dict[str, str]:
    """Return path of an image -> list, as fold 0 of nnU-Net's splits_final.json says; empty where there is none.

    The cases that the fold is validated on are for testing, and validation is drawn from the others; where a folder has
    test cases with masks (labelsTs), they are for validation. Other cases with a mask are in no list. As for `lists`.
    """
    file = next((each / SPLITS for each in (root, root.parent) if (each / SPLITS).is_file()), None)
    if file is None:
        return {}
    train, held_out = (set(cases) for cases in read_fold(file, 0))
    tests = {str(case.image.path): "test" for case in tree.cases
             if case.mask and case.section == "test" and case.image.stem not in train | held_out}  # fmt: skip
    chosen = {str(case.image.path): ("validation" if tests else "test") if case.image.stem in held_out else "training"
              for case in tree.cases if case.mask and case.image.stem in train | held_out}  # fmt: skip
    if len(set(chosen.values())) < 2:
        return {}
    return _complete(tree, groups, chosen | tests, remedy)


def listed(tree: Tree, sections: dict[str, str]) -> Tree:
    """Return a tree without the cases that are in no list, which its `left` names; all of it where there are no lists.

    Args:
        tree: images and masks.
        sections: as `lists` or `nnunet_lists` returns it.
    """
    if not sections:
        return tree
    for case in tree.cases:
        if str(case.image.path) not in sections:
            why = f"images that fold 0 of {SPLITS} does not name" if case.mask else (
                "images without masks of validation and test patients"
            )  # fmt: skip
            tree.left[why].append(str(case.image.relative))
    return replace(tree, cases=[case for case in tree.cases if str(case.image.path) in sections])


def _complete(tree: Tree, groups: dict[str, str], chosen: dict[str, str], remedy: str) -> dict[str, str]:
    """Draw validation patients where there are none, and add images without masks, but not of patients held out."""
    patients = patient_of_each(tree, groups)
    if "validation" not in chosen.values():
        training = {path: patients[path] for path, section in chosen.items() if section == "training"}
        drawn = share_out(training.values(), 0, VALIDATION, 0, remedy)["validation"]
        chosen = chosen | {path: "validation" for path, patient in training.items() if patient in drawn}
    held_out = {patients[path] for path, section in chosen.items() if section != "training"}
    unlabelled = [str(case.image.path) for case in tree.cases if case.mask is None]
    return chosen | {path: "training" for path in unlabelled if patients[path] not in held_out}


def folders(tree: Tree, groups: dict[str, str], sections: dict[str, str]) -> dict[str, str]:
    """Return the preparer's options that name the folders; empty where a table is needed."""
    labelled = [case for case in tree.cases if case.mask]
    unlabelled = [case for case in tree.cases if not case.mask]
    images, extra = _parents([case.image.path for case in labelled]), _parents([case.image.path for case in unlabelled])
    masks = _parents([case.mask.path for case in labelled if case.mask])
    plain = not groups and not sections and tree.channels == 1 and len(images) == len(masks) == 1 and len(extra) < 2
    if not plain or len({*images, *masks, *extra}) < 2 + len(extra):
        return {}
    endings = {_endings(case) for case in labelled}
    if len(endings) > 1:
        return {}
    ((image_ending, mask_ending),) = endings
    if (image_ending and not tree.volumes) or (tree.volumes and _repeats([case.image.path for case in tree.cases])):
        return {}
    options = {"images": str(images[0]), "masks": str(masks[0])}
    options |= {"unlabelled": str(extra[0])} if extra else {}
    options |= {"image-suffix": image_ending} if image_ending else {}
    return options | ({"mask-suffix": mask_ending} if mask_ending else {})


def table(tree: Tree, groups: dict[str, str], sections: dict[str, str]) -> str:
    """Return the text of a CSV file of all images."""
    text = io.StringIO()
    columns = ["image", "label", *(["group"] if groups else []), *(["split"] if sections else [])]
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    refuse_alike(groups.values())
    for case in tree.cases:
        path = str(case.image.path)
        row = [case.image.path.resolve(), case.mask.path.resolve() if case.mask else ""]
        rows.writerow([*row, *([groups[path]] if groups else []), *([sections[path]] if sections else [])])
    return text.getvalue()


def patient_of_each(tree: Tree, groups: dict[str, str]) -> dict[str, str]:
    """Return path of an image -> patient: by name, by DICOM's PatientID where that tells any apart, else the path."""
    ids = {str(case.image.path): same_spelling(case.image.patient) for case in tree.cases}
    told = len({*ids.values()} - {""}) > 1
    return {path: groups.get(path) or (code if told else "") or path for path, code in ids.items()}


def patients_of(tree: Tree, groups: dict[str, str]) -> set[str]:
    """Return the patients of labelled images."""
    patients = patient_of_each(tree, groups)
    return {patients[str(case.image.path)] for case in tree.cases if case.mask}


def _parents(paths: Sequence[Path]) -> list[Path]:
    return sorted({path.parent for path in paths})


def _endings(case: Case) -> tuple[str, str]:
    """Return what the names of an image and its mask have after what they share."""
    assert case.mask
    image = case.image.path.name if case.image.kind == "series" else names.stem(case.image.path.name)
    mask = names.stem(case.mask.path.name)
    shared = next((n for n, (a, b) in enumerate(zip(image, mask, strict=False)) if a != b), min(len(image), len(mask)))
    return image[shared:], mask[shared:]


def _repeats(paths: Sequence[Path]) -> bool:
    return max(Counter(path.name for path in paths).values()) > 1
