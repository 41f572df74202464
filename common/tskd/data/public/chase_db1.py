"""Prepare CHASE_DB1: retinal vessels in both eyes of children, two observers, scored in the camera's field of view."""

import os
import re
from pathlib import Path

from tskd.data.io.image_files import list_images, pair
from tskd.data.prepare.image_checks import Picture, inspect_images
from tskd.data.prepare.image_writer import prepare_images
from tskd.data.public.field_of_view import field_of_view
from tskd.data.split import choose_lists
from tskd.errors import TskdError

LABELS = {"0": "background", "1": "vessel"}
TEST, VALIDATION = ("02", "08", "13"), ("05",)  # children of the fixed split; the rest is training

_PROVENANCE = {
    "source": "CHASE_DB1 (M. M. Fraz et al., IEEE Trans. Biomed. Eng. 59(9), 2012)",
    "licence": "CC BY 4.0",
    "groups": "children, from the file names",
    "region": "validation and test labels are 255 outside the camera's field of view",
}


def prepare_chase_db1(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> Path:
    """Prepare CHASE_DB1; entries of the test list have the second observer's label as `label_2nd`.

    Args:
        source: folder with images/Image_CHILD[L|R].jpg, and PNG of the same name in masks/ and
            masks_2nd_observer/.
        output: new folder for the data set; left as it is if it holds the finished result of the same preparation.
        seed: None keeps the fixed split (test 02, 08, 13; validation 05; the rest training); an integer draws other
            children into lists of the same sizes. It also orders the training list (None: 0).
        fold: cross-validation fold 0 to `folds` - 1: its test set is that fold, one further child is validation.
        folds: number of folds when `fold` is given.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: files missing or unusable, or an output folder that holds something else.
    """
    images = list_images(Path(source, "images"))
    second = dict(pair(images, list_images(Path(source, "masks_2nd_observer"))))
    pictures = [
        Picture(path.stem, _child(path), path, mask, second[path])
        for path, mask in pair(images, list_images(Path(source, "masks")))
    ]
    split, rule = choose_lists([p.group for p in pictures], TEST, VALIDATION, seed, fold, folds)
    header = {
        "name": "chase_db1",
        "modality": "fundus photography",
        "labels": LABELS,
        "provenance": {**_PROVENANCE, "split": rule},
    }
    findings = inspect_images(pictures, structures=1, channels=3)
    return prepare_images(output, pictures, findings, split, header, seed or 0, region=field_of_view)


def _child(path: Path) -> str:
    match = re.fullmatch(r"Image_(\d+)[LR]", path.stem)
    if match is None:
        raise TskdError(f"{path}: expected a name like Image_01L.jpg, found another. Leave only CHASE_DB1's images.")
    return match[1]
