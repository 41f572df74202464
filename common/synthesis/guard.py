"""A diffusion model must not see the images that anything is validated or tested on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from common.data.datalist import read
from common.data.volumes import NIFTI
from common.errors import TskdError


def check_training_images(dataset_file: str | os.PathLike[str], items: Sequence[Mapping[str, str]]) -> None:
    """Refuse a training list that holds anything but images of `training` and `unlabelled`.

    By path: every image is an entry of one of these lists. By content: none has the pixels of an image of `validation`
    or `test`, under whatever name (2-D images; that patients are on one side only is checked where dataset.json is
    read).

    Args:
        dataset_file: path of dataset.json.
        items: the list that the model is about to be trained on, {image, ...} with absolute paths.

    Raises:
        TskdError: naming every image that should not be there.
    """
    data, folder = read(dataset_file), Path(dataset_file).resolve().parent
    place = {
        os.path.realpath(folder / entry["image"]): name
        for name in ("training", "unlabelled", "validation", "test")
        for entry in data[name]
    }
    held_out = {_content(path): path for path, name in place.items() if name in ("validation", "test") and _flat(path)}
    problems = []
    for item in items:
        path = os.path.realpath(item["image"])
        where = place.get(path)
        if where not in ("training", "unlabelled"):
            problems.append(f"{item['image']} is in {f'the list {where!r}' if where else 'no list'} of the dataset")
        elif held_out and (twin := held_out.get(_content(path))):
            problems.append(f"{item['image']} (in '{where}') has the pixels of {twin} (in '{place[twin]}')")
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise TskdError(
            f"{dataset_file}: expected training images of the lists 'training' and 'unlabelled' only, found: "
            f"{'; '.join(problems[:10])}{more}. A model that has seen a test image makes every later number too good: "
            "remove these images from train#dataset#data or from the lists."
        )


def _flat(path: str) -> bool:
    return not path.endswith(NIFTI)


def _content(path: str) -> str:
    """SHA-256 of size and pixels; grey and colour files of one picture agree."""
    try:
        with Image.open(path) as picture:
            return hashlib.sha256(str(picture.size).encode() + picture.convert("RGB").tobytes()).hexdigest()
    except OSError as error:
        raise TskdError(f"{path}: expected a PNG or JPEG image, found {error}. Prepare the data again.") from error
