"""Prepare ISIC 2018 (Task 1), skin lesions in dermoscopic RGB images, from the folders of its archives."""

import os
from pathlib import Path
from typing import Any

from tskd.data.public.image_parts import paired, prepare_parts
from tskd.errors import TskdError

_ABOUT: dict[str, Any] = {
    "name": "isic2018",
    "modality": "dermoscopy",
    "labels": {"0": "background", "1": "lesion"},
    "provenance": {
        "source": "ISIC 2018, Task 1 (N. C. F. Codella et al., arXiv:1902.03368; HAM10000: P. Tschandl et al., "
        "Scientific Data 5:180161, 2018)",
        "licence": "CC BY-NC 4.0",
    },
}
_INPUT, _TRUTH = "ISIC2018_Task1-2_{}_Input", "ISIC2018_Task1_{}_GroundTruth"
_PARTS = {"train": "Training", "validation": "Validation", "test": "Test"}


def prepare_isic2018(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare ISIC 2018 Task 1 (lesion boundaries).

    Args:
        source: folder with the unpacked archives ISIC2018_Task1-2_Training_Input and
            ISIC2018_Task1_Training_GroundTruth, and those of Validation and Test if they are there. Validation or test
            images without masks are passed over.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: draws the lists that the source does not give, and orders the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 over all images instead: its test list is that fold.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    parts = {}
    for part, name in _PARTS.items():
        images, masks = Path(source, _INPUT.format(name)), Path(source, _TRUTH.format(name))
        if part == "train" and not (images.is_dir() and masks.is_dir()):
            raise TskdError(
                f"{source}: expected the folders {images.name} and {masks.name} of the archives, found not both. "
                "Unpack them here, or give the folder that has them."
            )
        if images.is_dir() and masks.is_dir():
            parts[part] = paired(images, masks, "_segmentation")
    return prepare_parts(output, _ABOUT, parts, 3, seed, fold, folds)
