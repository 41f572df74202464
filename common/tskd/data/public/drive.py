"""Prepare DRIVE, retinal vessels in fundus photographs, scored in the field of view that its owners give."""

import os
from pathlib import Path
from typing import Any

from tskd.data.io.image_files import list_images
from tskd.data.prepare.image_checks import Picture
from tskd.data.public.image_parts import prepare_parts
from tskd.errors import TskdError

_ABOUT: dict[str, Any] = {
    "name": "drive",
    "modality": "fundus photography",
    "labels": {"0": "background", "1": "vessel"},
    "provenance": {
        "source": "DRIVE (J. Staal et al., IEEE Trans. Med. Imaging 23(4):501-509, 2004)",
        "licence": "terms of its owners (Image Sciences Institute, Utrecht): research, no redistribution",
        "region": "validation and test labels are 255 outside the field of view of the source's mask/",
    },
}


def prepare_drive(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare DRIVE; entries of the test list have the second observer's label as `label_2nd` where there is one.

    Args:
        source: folder with training/ and test/, each with images/NN_*.tif, 1st_manual/NN_manual1.gif and
            mask/NN_*_mask.gif; test/ also with 2nd_manual/NN_manual2.gif. A test folder without 1st_manual (as newer
            downloads have it) gives unlabelled images, and a test list is drawn from training/.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: draws the lists that the source does not give, and orders the training list; None for 0.
        fold: cross-validation fold 0 to `folds` - 1 over all labelled images instead: its test list is that fold.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    train = _part(Path(source, "training"))
    test = _part(Path(source, "test")) if Path(source, "test", "images").is_dir() else []
    labelled = bool(test) and all(picture.label for picture in test)
    if without := [picture.case for picture in train if picture.label is None]:
        raise TskdError(f"{source}/training/1st_manual: expected a label for each image, found none of {without[:5]}.")
    parts = {"train": train, "test": test} if labelled else {"train": [*train, *test]}
    return prepare_parts(output, _ABOUT, parts, 3, seed, fold, folds)


def _part(folder: Path) -> list[Picture]:
    """Return the pictures of training/ or test/: files belong together by the number that their names begin with."""
    masks = {name: _numbered(folder / name) for name in ("1st_manual", "2nd_manual", "mask")}
    pictures = []
    for image in list_images(folder / "images"):
        number = _number(image)
        if number not in masks["mask"]:
            raise TskdError(
                f"{folder / 'mask'}: expected the field of view of {image.name}, a file {number}_*_mask.gif; found "
                "none. Add the file."
            )
        first, second, region = (masks[name].get(number) for name in masks)
        pictures.append(Picture(number, "", image, first, second if first else None, region))
    return pictures


def _numbered(folder: Path) -> dict[str, Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return {_number(path): path for path in files if path.is_file() and not path.name.startswith(".")}


def _number(path: Path) -> str:
    return path.name.partition("_")[0]
