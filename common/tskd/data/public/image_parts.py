"""Public sets of 2-D images whose owners give parts (train, validation, test), or none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tskd.data.io.image_files import list_images, pair, write_picture
from tskd.data.io.picture_header import open_picture
from tskd.data.prepare.image_checks import (
    UNKNOWN_PATIENTS,
    Findings,
    Picture,
    inspect_images,
    one_group_an_image,
    refuse_size_mismatch,
)
from tskd.data.prepare.image_writer import prepare_images
from tskd.data.split import draw_lists, fold_lists, split_groups

TEST, VALIDATION = 0.2, 0.1  # shares of the patients, where the owners give no such part


def prepare_parts(
    output: str | os.PathLike[str],
    about: Mapping[str, Any],
    parts: Mapping[str, Sequence[Picture]],
    channels: int,
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare a public set of 2-D images; images of unknown patients count as a patient each.

    Args:
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        about: name, modality, labels and provenance (source, licence, terms).
        parts: "train", and "validation" and "test" where the owners give them -> pictures. Those of "train" without a
            label go to the list `unlabelled`.
        channels: 1 or 3.
        seed: draws what the owners do not give (validation: a tenth; test: a fifth), and orders the training list
            (None: 0).
        fold: None keeps the owners' parts; 0 to `folds` - 1 takes that fold of all labelled images as the test list.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    given = [picture for part in parts.values() for picture in part]
    findings = inspect_images(given, len(about["labels"]) - 1, channels)
    pictures, split, rule = _lists(parts, findings, seed or 0, fold, folds)
    provenance = {**about["provenance"], "split": rule}
    if any(not picture.group for picture in given):
        provenance.setdefault("groups", UNKNOWN_PATIENTS)
    return prepare_images(output, pictures, findings, split, {**about, "provenance": provenance}, seed or 0)


def _lists(
    parts: Mapping[str, Sequence[Picture]], findings: Findings, seed: int, fold: int | None, folds: int
) -> tuple[list[Picture], dict[str, list[str]], str]:
    """Pictures with their patients, list -> patients, and the rule in words."""
    if fold is None and "test" in parts:  # identical images in two parts are a leak that is refused, not one patient
        known = {name: with_groups(part, findings) for name, part in parts.items()}
        home = {name: sorted({picture.group for picture in part}) for name, part in known.items()}
        rule = "test is the source's test folder; validation "
        if "validation" in parts:
            validation, training = home["validation"], home["train"]
            rule += "its validation folder"
        else:
            count = round(VALIDATION * len(parts["train"]))
            validation, training = split_groups(home["train"], (count, None), seed)
            rule += f"drawn from its train folder, seed {seed}"
        split = {"training": training, "validation": validation, "test": home["test"]}
        return [picture for part in known.values() for picture in part], split, rule
    pictures = with_groups([picture for part in parts.values() for picture in part], findings)
    labelled = sorted({picture.group for picture in pictures if picture.label})
    if fold is None:
        split, rule = draw_lists(labelled, TEST, VALIDATION, seed)
    else:
        count = max(round(VALIDATION * len(parts["train"])), 1)
        split, rule = fold_lists(labelled, fold, folds, count, seed)
        rule += ", of the source's train and test folders together" if "test" in parts else ""
    rest = {picture.group for picture in pictures} - {group for groups in split.values() for group in groups}
    return pictures, {**split, "training": sorted([*split["training"], *rest])}, rule


def with_groups(pictures: Sequence[Picture], findings: Findings) -> list[Picture]:
    """Pictures of which each has a patient; identical images share one, known patients of such images become one."""
    first: dict[str, str] = {}
    joined: dict[str, str] = {}

    def patient(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    for picture in pictures:
        if picture.group:
            listed = patient(picture.group)
            same_image = patient(first.setdefault(findings.pixels[picture.case], picture.group))
            if listed != same_image:
                joined[listed] = same_image
    known = [replace(picture, group=patient(picture.group)) for picture in pictures if picture.group]
    return known + one_group_an_image([picture for picture in pictures if not picture.group], findings.pixels)


def paired(images: Path, masks: Path, mask_suffix: str = "", case: str = "") -> list[Picture]:
    """Return images of a folder with masks in another, as pictures of unknown patients; `case` begins names."""
    return [
        Picture(f"{case}{image.stem}", "", image, mask)
        for image, mask in pair(list_images(images), list_images(masks), mask_suffix)
    ]


def black_and_white(mask: Path) -> np.ndarray:
    """Return a mask that was saved as JPEG, whose greys nobody drew, as 0 and 1: uint8 [rows, columns]."""
    return (np.asarray(open_picture(mask).convert("L")) > 127).astype(np.uint8)


def rewritten(folder: Path, picture: Picture, name: str, values: np.ndarray, source: Path) -> Path:
    """Write a mask that was made of `source` as PNG into a folder of one's own, its size compared with the image's.

    Raises:
        TskdError: the sizes differ.
    """
    refuse_size_mismatch(source, values, np.asarray(open_picture(picture.image)))
    path = folder / name / f"{picture.case}.png"
    write_picture(path, values)
    return path
