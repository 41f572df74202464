"""Prepare one's own 2-D images: two folders of images and masks, or a table that lists them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tskd.data.datalist import label_names
from tskd.data.io.image_files import list_images, pair
from tskd.data.prepare.image_checks import UNKNOWN_PATIENTS, Findings, Picture, inspect_images, one_group_an_image
from tskd.data.prepare.image_writer import prepare_images
from tskd.data.prepare.inventory import Inventory
from tskd.data.prepare.patients import group_in_name, refuse_alike, warn_of_several
from tskd.data.prepare.table import SECTIONS, case_names, read_table, refuse_shared_masks
from tskd.data.split import FEWER_LISTS, draw_lists
from tskd.errors import TskdError
from tskd.files import composed


@dataclass(frozen=True)
class Source:
    """Pictures, the lists that the user chose for them (case -> list; empty: to be drawn), and who the patients are."""

    pictures: Sequence[Picture]
    sections: Mapping[str, str]
    groups: str
    inventory: Inventory


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
    exif: Literal["upright", "stored"] | None = None,
) -> Path:
    """Prepare one's own images.

    Args:
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        labels: names of the structures, for mask values 1, 2, ...
        images: folder of images; with `masks`, whose files have the images' names.
        masks: folder of masks.
        table: instead of both, a CSV file with the columns image, label (empty: unlabelled), and, if wanted, group (the
            patient) and split (training, validation or test); paths are relative to the table (see `read_table`).
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
        exif: what masks without an EXIF orientation were drawn on where their images have one: "upright" or "stored".

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, names without a patient, or an output folder that holds something else.
    """
    given = [source is not None for source in (images, masks, table)]
    if given not in ([True, True, False], [False, False, True]):
        raise TskdError("expected --images and --masks, or --table instead; found both, or neither complete. Give one.")
    names = label_names(labels)
    source = _from_table(Path(table)) if table else _from_folders(Path(str(images)), Path(str(masks)), mask_suffix)
    extra = [Picture(composed(path.stem), "", path) for path in list_images(unlabelled)] if unlabelled else []
    if unlabelled:
        source.inventory.folder(unlabelled, [picture.image for picture in extra])
    pictures = [*source.pictures, *extra]
    groups = source.groups
    if group_pattern is not None:
        pictures = [replace(p, group=p.group or group_in_name(p.case, group_pattern, p.image)) for p in pictures]
        groups = groups or f"found in the file names by {group_pattern}"
    refuse_alike(picture.group for picture in pictures if picture.group)
    findings = inspect_images(pictures, len(labels), channels, exif)
    pictures, groups = _complete_groups(pictures, findings, source.sections, groups)
    refuse_shared_masks((picture.image, picture.label, picture.group) for picture in pictures if picture.label)
    if group_pattern is None:
        warn_of_several({picture.case: picture.group for picture in pictures})
    if source.sections and fold is not None:
        raise TskdError(f"{table}: expected lists in the column split, or --fold; found both. Remove one of them.")
    if source.sections:
        split = {name: sorted({p.group for p in pictures if source.sections.get(p.case) == name}) for name in SECTIONS}
        rule = "as the table says"
    else:
        labelled = (p.group for p in pictures if p.label)
        split, rule = draw_lists(labelled, test, validation, seed, fold, folds, FEWER_LISTS)
    listed = {group for patients in split.values() for group in patients}
    split["training"] = sorted({*split["training"], *({picture.group for picture in pictures} - listed)})
    header = {
        "name": name or Path(output).resolve().name,
        "modality": modality,
        "labels": names,
        "provenance": {"source": "own images", "licence": "not stated", "split": rule, "groups": groups},
    }
    return prepare_images(output, pictures, findings, split, header, seed, inventory=source.inventory)


def _from_folders(images: Path, masks: Path, mask_suffix: str) -> Source:
    pairs = pair(list_images(images), list_images(masks), mask_suffix)
    inventory = Inventory()
    inventory.folder(images, [image for image, _ in pairs])
    if masks.resolve() != images.resolve():
        inventory.folder(masks, [mask for _, mask in pairs])
    return Source([Picture(composed(image.stem), "", image, mask) for image, mask in pairs], {}, "", inventory)


def _from_table(path: Path) -> Source:
    table = read_table(path)
    names = case_names([row.image for row in table.rows], lambda image: composed(image.stem))
    pictures = [Picture(names[row.image], row.group, row.image, row.label) for row in table.rows]
    sections = {names[row.image]: row.section for row in table.rows if row.section}
    inventory = Inventory(sum(1 + (row.label is not None) for row in table.rows) + len(table.unused))
    inventory.leave("columns of the table", table.unused)
    return Source(pictures, sections, "column of the table" if table.has_groups else "", inventory)


def _complete_groups(
    pictures: Sequence[Picture], findings: Findings, sections: Mapping[str, str], groups: str
) -> tuple[list[Picture], str]:
    """Where the patients are unknown, of all images or of some, each image counts as one."""
    known = [picture for picture in pictures if picture.group]
    pixels = {case: sections.get(case, "") + digest for case, digest in findings.pixels.items()}
    unknown = one_group_an_image([picture for picture in pictures if not picture.group], pixels)
    if not unknown:
        return known, groups
    return known + unknown, f"{groups}; of the others {UNKNOWN_PATIENTS}" if known else UNKNOWN_PATIENTS
