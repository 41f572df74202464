"""Leakage check: a diffusion model must not see the images that anything is validated or tested on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tskd.data.datalist import read
from tskd.data.hashing import content_hashes, held_out_contents
from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.synthesis.training_record import training_hashes


def check_training_images(
    dataset_file: str | os.PathLike[str],
    items: Sequence[Mapping[str, str]],
    init_from: str | os.PathLike[str] | None = None,
    in_channels: int | None = None,
) -> None:
    """Refuse a training list, or a start, with anything but images of `training` and `unlabelled`.

    By path: every image is an entry of one of these lists. By content: none has the pixels of an image of `validation`
    or `test`, or of a slice of their volumes as the preparation would write it, under whatever name. (That patients are
    on one side only is checked where dataset.json is read.)

    Args:
        dataset_file: path of dataset.json.
        items: the list that the model is about to be trained on, {image, ...} with absolute paths.
        init_from: pipeline that the training begins with; none of the images that its `training.json` lists may be held
            out. One without that file is let through with a warning.
        in_channels: channels that the network takes, None for any.

    Raises:
        TskdError: naming every image that should not be there.
    """
    data, folder = read(dataset_file), Path(dataset_file).resolve().parent
    if in_channels is not None and in_channels != data["channels"]:
        raise TskdError(
            f"{dataset_file}: expected in_channels = {in_channels} as the configuration says, found "
            f"{data['channels']}. Pass --in_channels {data['channels']}"
        )
    list_of = {
        os.path.realpath(folder / entry["image"]): name
        for name in ("training", "unlabelled", "validation", "test")
        for entry in data[name]
    }
    held_out, intensity = held_out_contents(dataset_file), Intensity.of(dataset_file)
    problems = [
        f"{known} is an image that {init_from} was trained on"
        for known in map(held_out.get, sorted(training_hashes(init_from)))
        if known is not None
    ]
    for item in items:
        path = os.path.realpath(item["image"])
        list_name = list_of.get(path)
        if list_name not in ("training", "unlabelled"):
            problems.append(
                f"{item['image']} is in {f'the list {list_name!r}' if list_name else 'no list'} of the dataset"
            )
        elif held_out and (twin := next(filter(None, map(held_out.get, content_hashes(path, intensity))), None)):
            problems.append(f"{item['image']} (in '{list_name}') has the pixels of {twin}")
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise TskdError(
            f"{dataset_file}: expected training images of the lists 'training' and 'unlabelled' only, found: "
            f"{'; '.join(problems[:10])}{more}. A model that has seen a test image makes every later number too good: "
            "remove these images from train#dataset#data or from the lists, and begin with no model that has seen them."
        )
