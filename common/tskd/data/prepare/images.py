"""Prepare one's own 2-D images: two folders of images and masks, or a table that lists them."""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tskd.data.io.image_files import list_images, pair
from tskd.data.prepare.image_checks import UNKNOWN_PATIENTS, Findings, Picture, inspect_images, one_group_an_image
from tskd.data.prepare.image_writer import prepare_images
from tskd.data.split import draw_lists
from tskd.errors import TskdError

SECTIONS = ("training", "validation", "test")


@dataclass(frozen=True)
class Source:
    """Pictures, the lists that the user chose for them (case -> list; empty: to be drawn), and who the patients are."""

    pictures: Sequence[Picture]
    sections: Mapping[str, str]
    groups: str


def prepare_images_masks(
    output: str | os.PathLike[str],
    labels: Sequence[str],
    images: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    table: str | os.PathLike[str] | None = None,
    unlabelled: str | os.PathLike[str] | None = None,
    mask_suffix: str = "",
    group_pattern: str | None = None,
    test: float = 0.2,
    validation: float = 0.1,
    seed: int = 0,
    fold: int | None = None,
    folds: int = 3,
    channels: Literal[1, 3] | None = None,
    name: str | None = None,
    modality: str = "unknown",
) -> Path:
    """Prepare one's own images.

    Args:
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        labels: names of the structures, for mask values 1, 2, ...
        images: folder of images; with `masks`, whose files have the images' names.
        masks: folder of masks.
        table: instead of both, a CSV file with the columns image, label (empty: unlabelled), and, if wanted, group (the
            patient) and split (training, validation or test); paths are relative to the table.
        unlabelled: folder of further images without masks.
        mask_suffix: what a mask's name has after its image's name, such as "_segmentation".
        group_pattern: regular expression that finds the patient in an image's name without its ending: its first
            parenthesis, or all that it matches.
        test: share of the patients for the test list, unless the table has the lists.
        validation: share of the patients for the validation list.
        seed: seed of the draw and of the order of the training list.
        fold: instead of `test`: this fold, 0 to `folds` - 1, of a cross-validation over the patients is the test list.
        folds: number of folds when `fold` is given.
        channels: 1 or 3 converts all images; None takes what they are.
        name: name of the data set; None takes the output folder's name.
        modality: such as US, dermoscopy, X-ray.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, names without a patient, or an output folder that holds something else.
    """
    given = [source is not None for source in (images, masks, table)]
    if given not in ([True, True, False], [False, False, True]):
        raise TskdError("expected --images and --masks, or --table instead; found both, or neither complete. Give one.")
    source = _from_table(Path(table)) if table else _from_folders(Path(str(images)), Path(str(masks)), mask_suffix)
    extra = [Picture(path.stem, "", path) for path in list_images(unlabelled)] if unlabelled else []
    pictures = [*source.pictures, *extra]
    groups = source.groups
    if group_pattern is not None:
        pictures = [replace(picture, group=picture.group or _patient(picture, group_pattern)) for picture in pictures]
        groups = groups or f"found in the file names by {group_pattern}"
    found = inspect_images(pictures, len(labels), channels)
    pictures, groups = _complete_groups(pictures, found, source.sections, groups)
    if source.sections and fold is not None:
        raise TskdError(f"{table}: expected lists in the column split, or --fold; found both. Remove one of them.")
    if source.sections:
        split = {name: sorted({p.group for p in pictures if source.sections.get(p.case) == name}) for name in SECTIONS}
        rule = "as the table says"
    else:
        split, rule = draw_lists((p.group for p in pictures if p.label), test, validation, seed, fold, folds)
    listed = {group for own in split.values() for group in own}
    split["training"] = sorted({*split["training"], *({picture.group for picture in pictures} - listed)})
    header = {
        "name": name or Path(output).resolve().name,
        "modality": modality,
        "labels": {str(index): label for index, label in enumerate(["background", *labels])},
        "provenance": {"source": "own images", "licence": "not stated", "split": rule, "groups": groups},
    }
    return prepare_images(output, pictures, found, split, header, seed)


def _from_folders(images: Path, masks: Path, mask_suffix: str) -> Source:
    pairs = pair(list_images(images), list_images(masks), mask_suffix)
    return Source([Picture(image.stem, "", image, mask) for image, mask in pairs], {}, "")


def _from_table(table: Path) -> Source:
    if not table.is_file():
        raise TskdError(f"{table}: expected a CSV file, found none. Correct the path.")
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TskdError(f"{table}: expected UTF-8, found {error}. Save it as `CSV UTF-8`.") from error
    first = text.partition("\n")[0]
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in first else ","))
    columns = set(rows[0]) if rows else set()
    if not {"image", "label"} <= columns:
        raise TskdError(
            f"{table}: expected the columns image, label and, if wanted, group and split, with rows below; found "
            f"{first.strip()!r} and {len(rows)} rows. Correct the table."
        )
    pictures: list[Picture] = []
    sections: dict[str, str] = {}
    problems = []
    for number, row in enumerate(rows, start=2):
        image, label, group, section = ((row.get(key) or "").strip() for key in ("image", "label", "group", "split"))
        problems += [f"line {number}: no image"] * (not image)
        problems += [f"line {number}: no group"] * (not group and "group" in columns)
        problems += [f"line {number}: no file {file}" for file in (image, label) if not (table.parent / file).exists()]
        if "split" in columns and section not in SECTIONS:
            problems.append(f"line {number}: split {section!r} is none of {', '.join(SECTIONS)}")
        if section in ("validation", "test") and not label:
            problems.append(f"line {number}: an image of the {section} list needs a label")
        pictures.append(Picture(Path(image).stem, group, table.parent / image, table.parent / label if label else None))
        sections |= {Path(image).stem: section} if section else {}
    if problems:
        raise TskdError("\n  - ".join([f"{table}: {len(problems)} problems", *problems[:20]]))
    return Source(pictures, sections, "column group of the table" if "group" in columns else "")


def _patient(picture: Picture, pattern: str) -> str:
    try:
        match = re.search(pattern, picture.case)
    except re.error as error:
        raise TskdError(f"--group-pattern {pattern!r}: expected a regular expression, found {error}.") from error
    group = match and (match[1] if match.re.groups else match[0])
    if not group:
        raise TskdError(
            f"{picture.image}: expected a patient in the name by the pattern {pattern!r}, found none. Correct the "
            "pattern (quote it in the shell), or leave it out if each image is of another patient."
        )
    return group


def _complete_groups(
    pictures: Sequence[Picture], found: Findings, sections: Mapping[str, str], groups: str
) -> tuple[list[Picture], str]:
    """Where the patients are unknown, of all images or of some, each image counts as one."""
    known = [picture for picture in pictures if picture.group]
    pixels = {case: sections.get(case, "") + digest for case, digest in found.pixels.items()}
    unknown = one_group_an_image([picture for picture in pictures if not picture.group], pixels)
    if not unknown:
        return known, groups
    return known + unknown, f"{groups}; of the others {UNKNOWN_PATIENTS}" if known else UNKNOWN_PATIENTS
