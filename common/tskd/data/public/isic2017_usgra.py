"""Prepare ISIC 2017 and USGRA, public sets of 2-D images that come with a test folder."""

import os
from pathlib import Path
from typing import Any

from tskd.data.prepare.image_checks import Picture
from tskd.data.public.image_parts import paired, prepare_parts

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
    return prepare_parts(output, _ISIC2017, _parts(Path(source)), 3, seed, fold, folds)


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
    return prepare_parts(output, _USGRA, _parts(Path(source)), 1, seed, fold, folds)


def _parts(source: Path) -> dict[str, list[Picture]]:
    """Pictures of train/ and test/, each with images/ and masks/ (PNG, same names)."""
    return {name: paired(source / name / "images", source / name / "masks") for name in ("train", "test")}
