"""Prepare the Open Kidney Ultrasound Data Set: two observers, the capsule or its regions."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tskd.data.io.image_files import list_images, mask_values
from tskd.data.prepare.image_checks import Picture, inspect_images
from tskd.data.prepare.image_writer import prepare_images
from tskd.data.public.image_parts import TEST, VALIDATION, rewritten, with_groups
from tskd.data.split import draw_lists, split_groups
from tskd.errors import TskdError

REGIONS = {"0": "background", "1": "capsule", "2": "central echo complex", "3": "medulla", "4": "cortex"}
LABELS: dict[str, dict[str, str]] = {"capsule": {"0": "background", "1": "kidney"}, "regions": REGIONS}

_PROVENANCE = {
    "source": "The Open Kidney Ultrasound Data Set (R. Singla et al., ASMUS 2023, LNCS 14337, arXiv:2206.06657)",
    "licence": "CC BY-NC-SA 4.0",
    "terms": "access after registration with the owners",
    "groups": "number that the file names begin with; identical images are one patient",
}


def prepare_kidneyus(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    structures: Literal["capsule", "regions"] = "capsule",
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare KidneyUS; entries of the test list have the second observer's label as `label_2nd` where there is one.

    Args:
        source: folder with labels/reviewed_masks_1/ and labels/reviewed_masks_2/, each with capsule/ and regions/, and
            with the images in images/ or kidneyUS_images_DATE/, where the owners' archive has them.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        structures: "capsule" (the whole kidney), or "regions": capsule without a region, central echo complex, medulla
            and cortex.
        seed: draws the lists (test: a fifth of the patients, of those that both observers have labelled; validation: a
            tenth) and orders the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 over all patients instead: its test list is that fold.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    images = _images(Path(source))
    with tempfile.TemporaryDirectory() as folder:
        pictures = [_picture(image, Path(source, "labels"), structures, Path(folder)) for image in images]
        if not any(picture.label for picture in pictures):
            raise TskdError(f"{source}/labels/reviewed_masks_1: expected masks of the images' names, found none.")
        findings = inspect_images(pictures, len(LABELS[structures]) - 1, channels=1)
        pictures = with_groups(pictures, findings)
        split, rule = _split(pictures, seed or 0, fold, folds)
        header: dict[str, Any] = {
            "name": "kidneyus",
            "modality": "US",
            "labels": LABELS[structures],
            "provenance": {**_PROVENANCE, "split": rule},
        }
        return prepare_images(output, pictures, findings, split, header, seed or 0)


def _images(source: Path) -> list[Path]:
    folders = [folder for folder in sorted(source.glob("*mages*")) if folder.is_dir()]
    if len(folders) != 1:
        raise TskdError(
            f"{source}: expected one folder of images, images/ or kidneyUS_images_DATE/, beside labels/; found "
            f"{', '.join(folder.name for folder in folders) or 'none'}. Put the archive's images there."
        )
    return list_images(folders[0])


def _picture(image: Path, labels: Path, structures: str, folder: Path) -> Picture:
    picture = Picture(image.stem, image.stem.partition("_")[0], image)
    annotations: dict[int, Path | None] = {}
    for observer in (1, 2):
        masks = {kind: labels / f"reviewed_masks_{observer}" / kind / f"{image.stem}.png" for kind in LABELS}
        if structures == "capsule":
            masks.pop("regions")
        there = all(path.is_file() for path in masks.values())
        annotations[observer] = (
            rewritten(folder, picture, str(observer), _values(masks), masks["capsule"]) if there else None
        )
    return replace(picture, label=annotations[1], label_2nd=annotations[2] if annotations[1] else None)


def _values(masks: Mapping[str, Path]) -> np.ndarray:
    """Class indices of one observer's masks; a region lies over the capsule."""
    capsule = mask_values(masks["capsule"])
    values = (capsule > 0).astype(np.uint8)
    if "regions" in masks:
        regions = mask_values(masks["regions"])
        if regions.shape != values.shape or regions.max() > 3:
            raise TskdError(
                f"{masks['regions']}: expected the size {values.shape} of the capsule's mask and the values 0 to 3 (1 "
                f"central echo complex, 2 medulla, 3 cortex), found {regions.shape} with {regions.max()}."
            )
        values[regions > 0] = regions[regions > 0] + 1
    return values


def _split(pictures: list[Picture], seed: int, fold: int | None, folds: int) -> tuple[dict[str, list[str]], str]:
    labelled = {picture.group for picture in pictures if picture.label}
    if fold is not None:
        split, rule = draw_lists(labelled, TEST, VALIDATION, seed, fold, folds)
    else:
        alone = {picture.group for picture in pictures if picture.label and picture.label_2nd is None}
        both = sorted(labelled - alone)
        num_test, num_validation = (max(round(share * len(labelled)), 1) for share in (TEST, VALIDATION))
        if len(both) < num_test:
            raise TskdError(
                f"reviewed_masks_2: expected labels of a second observer for {num_test} patients at least, found "
                f"{len(both)}. Add them, or take folds."
            )
        test, _ = split_groups(both, (num_test, None), seed)
        validation, training = split_groups(labelled - set(test), (num_validation, None), seed)
        split = {"training": training, "validation": validation, "test": test}
        rule = f"drawn by patient, test of those with two observers, seed {seed}"
    rest = {picture.group for picture in pictures} - labelled
    return {**split, "training": sorted([*split["training"], *rest])}, rule
