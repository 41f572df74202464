"""Prepare ISIC 2017 and USGRA, public sets of 2-D images that come with a test folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tskd.data.io.image_files import list_images, pair
from tskd.data.prepare.image_checks import UNKNOWN_PATIENTS, Picture, inspect_images, one_group_an_image
from tskd.data.prepare.image_writer import prepare_images
from tskd.data.split import fold_lists, split_groups

VALIDATION = 0.1  # share of the train folder

_ISIC2017: dict[str, Any] = {
    "name": "isic2017",
    "modality": "dermoscopy",
    "labels": {"0": "background", "1": "lesion"},
    "provenance": {"source": "ISIC 2017 (N. C. F. Codella et al., arXiv:1710.05006)", "licence": "CC0 1.0"},
}
_USGRA: dict[str, Any] = {
    "name": "usgra",
    "modality": "US",
    "labels": {"0": "background", "1": "nerve", "2": "vessel"},
    "provenance": {
        "source": "USGRA (usgra-seg, Ultrasound-Guided Regional Anaesthesia semantic segmentation, 2025)",
        "licence": "CC BY 4.0",
    },
}


def prepare_isic2017(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare ISIC 2017, skin lesions in RGB.

    Args:
        source: folder with train/ and test/, each with images/ and masks/.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: of the draw of the validation list and the order of the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 over all images instead: its test list is that fold.
        folds: number of folds when `fold` is given.
    """
    return _prepare(Path(source), output, _ISIC2017, 3, seed, fold, folds)


def prepare_usgra(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare USGRA, nerves and vessels in grey B-mode ultrasound.

    Args:
        source: folder with train/ and test/, each with images/ and masks/.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: of the draw of the validation list and the order of the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 over all images instead: its test list is that fold.
        folds: number of folds when `fold` is given.
    """
    return _prepare(Path(source), output, _USGRA, 1, seed, fold, folds)


def _prepare(
    source: Path,
    output: str | os.PathLike[str],
    about: Mapping[str, Any],
    channels: int,
    seed: int | None,
    fold: int | None,
    folds: int,
) -> Path:
    """Prepare train/ and test/, each with images/ and masks/ (PNG, same names).

    Args:
        source: folder with train/ and test/.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        about: name, modality, labels and provenance.
        channels: 1 or 3.
        seed: draws the validation list, a tenth of train/, and orders the training list (None: 0).
        fold: None keeps test/ as the test list; 0 to `folds` - 1 takes that fold of all images together.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    parts: dict[str, list[Picture]] = {}
    for name in ("train", "test"):
        pairs = pair(list_images(source / name / "images"), list_images(source / name / "masks"))
        parts[name] = [Picture(image.stem, "", image, mask) for image, mask in pairs]
    findings = inspect_images(parts["train"] + parts["test"], len(about["labels"]) - 1, channels)
    num_validation = round(VALIDATION * len(parts["train"]))
    if fold is None:  # identical images in train/ and test/ are a leak that is refused, not one patient
        train, test = (one_group_an_image(parts[name], findings.pixels) for name in ("train", "test"))
        pictures = train + test
        validation, training = split_groups((p.group for p in train), (num_validation, None), seed or 0)
        split = {"training": training, "validation": validation, "test": [picture.group for picture in test]}
        rule = f"test is the source's test folder; validation drawn from its train folder, seed {seed or 0}"
    else:
        pictures = one_group_an_image(parts["train"] + parts["test"], findings.pixels)
        split, rule = fold_lists((p.group for p in pictures), fold, folds, num_validation, seed or 0)
        rule += ", of the source's train and test folders together"
    header = {**about, "provenance": {**about["provenance"], "split": rule, "groups": UNKNOWN_PATIENTS}}
    return prepare_images(output, pictures, findings, split, header, seed or 0)
