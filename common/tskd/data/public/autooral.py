"""Prepare Autooral, photographs of oral ulcers, from folders of images and masks."""

import os
from pathlib import Path
from typing import Any

from tskd.data.public.image_parts import paired, prepare_parts
from tskd.errors import TskdError

_ABOUT: dict[str, Any] = {
    "name": "autooral",
    "modality": "photograph",
    "labels": {"0": "background", "1": "ulcer"},
    "provenance": {
        "source": "Autooral (C. Jiang, R. Wu et al., A high-order focus interaction model and oral ulcer dataset for "
        "oral ulcer segmentation, Scientific Reports 14:20085, 2024)",
        "licence": "academic research, no commercial use, terms of its authors",
    },
}
_IMAGES, _MASKS = ("images", "image", "img", "data"), ("masks", "mask", "labels", "label", "gt", "groundtruth")
_PARTS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}


def prepare_autooral(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare Autooral.

    Args:
        source: folder with images/ and masks/ (files of the same names), or with train/, val/ and test/ that have
            these; the folders' names in any case, singular or plural.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: draws the lists that the source does not give, and orders the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 over all images instead: its test list is that fold.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    folders = {name: _child(Path(source), names) for name, names in _PARTS.items()}
    given = {name: folder for name, folder in folders.items() if folder}
    if "train" not in given:
        given = {"train": Path(source)}
    several = len(given) > 1  # the parts may number their files alike
    parts = {}
    for name, folder in given.items():
        images, masks = _child(folder, _IMAGES), _child(folder, _MASKS)
        if images is None or masks is None:
            raise TskdError(
                f"{folder}: expected a folder of images ({', '.join(_IMAGES)}) and one of masks "
                f"({', '.join(_MASKS)}), found {'images only' if images else 'none'}. Name them so."
            )
        parts[name] = paired(images, masks, case=f"{name}_" if several else "")
    return prepare_parts(output, _ABOUT, parts, 3, seed, fold, folds)


def _child(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first folder of one of these names, in any case."""
    below = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((path for name in names for path in below if path.is_dir() and path.name.lower() == name), None)
