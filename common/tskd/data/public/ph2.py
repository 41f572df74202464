"""Prepare PH2, skin lesions in dermoscopic RGB images, from the folders of its archive."""

import os
from pathlib import Path
from typing import Any

from tskd.data.prepare.image_checks import Picture
from tskd.data.public.image_parts import prepare_parts
from tskd.errors import TskdError

_ABOUT: dict[str, Any] = {
    "name": "ph2",
    "modality": "dermoscopy",
    "labels": {"0": "background", "1": "lesion"},
    "provenance": {
        "source": "PH2 (T. Mendonca et al., PH2: a dermoscopic image database for research and benchmarking, EMBC "
        "2013)",
        "licence": "research and education, terms of the ADDI project",
    },
}


def prepare_ph2(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare PH2 (200 images).

    Args:
        source: the archive as it is published, or a folder in it that holds
            IMDnnn/IMDnnn_Dermoscopic_Image/IMDnnn.bmp and IMDnnn/IMDnnn_lesion/IMDnnn_lesion.bmp.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: draws the lists (test a fifth, validation a tenth) and orders the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 instead: its test list is that fold.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    images = sorted(Path(source).rglob("IMD*_Dermoscopic_Image/IMD*.bmp"))
    if not images:
        raise TskdError(
            f"{source}: expected IMDnnn/IMDnnn_Dermoscopic_Image/IMDnnn.bmp below it, found none. Give the folder "
            '"PH2 Dataset images" of the archive.'
        )
    pictures = [
        Picture(image.stem, "", image, image.parents[1] / f"{image.stem}_lesion" / f"{image.stem}_lesion.bmp")
        for image in images
    ]
    if missing := [str(picture.label) for picture in pictures if not Path(str(picture.label)).is_file()]:
        raise TskdError(
            f"{source}: expected a mask for each image, found no {', '.join(missing[:3])} ({len(missing)} in all). "
            "Unpack the archive again."
        )
    return prepare_parts(output, _ABOUT, {"train": pictures}, 3, seed, fold, folds)
