"""A dataset.json with fewer entries than another one; the images stay where they are.

`python -m tskd.workflow.sublist SOURCE COUNT TARGET` keeps the first COUNT images of SOURCE to learn from, of a real
data set the labelled ones (COUNT `all`: all of these, `3-patients`: all of the first three patients), of a synthetic
one so many; and its validation and test lists.
COUNT `limit-N` keeps N images of training and unlabelled ones each, and a quarter as many for validation and test.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd import data
from tskd.data.budget import Budget, split_training
from tskd.data.datalist import FILES, LISTS
from tskd.errors import TskdError


def write_sublist(source: Path, target: Path, lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write `target` with the header of `source` and the given lists, their paths made relative to `target`.

    Args:
        source: a dataset.json.
        target: the dataset.json to write.
        lists: section -> entries of `source`; sections that are not named are empty.
    """
    folder = os.path.relpath(source.parent, target.parent)
    sections = {
        section: [
            {key: os.path.normpath(f"{folder}/{value}") if key in FILES else value for key, value in entry.items()}
            for entry in lists.get(section, [])
        ]
        for section in LISTS
    }
    data.write(target, {**data.read(source), **sections})


def first_images(source: Path, count: Budget, target: Path) -> None:
    """Write `source` with only the first `count` of its training and unlabelled images, or a budget of its training.

    Args:
        source: a dataset.json.
        count: number of images, "3 patients" for those of training alone, or None for all of training.
        target: the dataset.json to write.

    Raises:
        TskdError: when there are fewer.
    """
    content = data.read(source)
    if isinstance(count, int):
        training = content["training"][:count]
    else:
        training, _ = split_training(content["training"], count, source)
        count = len(training)
    unlabelled = content["unlabelled"][: count - len(training)]
    if len(training) + len(unlabelled) < count:
        raise TskdError(
            f"{source}: expected at least {count} images, found {len(training) + len(unlabelled)} (the memorisation "
            "gate leaves some out). Raise `synthesis: num_images`, or lower the transfer set's `synthetic`."
        )
    write_sublist(source, target, {**content, "training": training, "unlabelled": unlabelled})


def few_images(source: Path, count: int, target: Path) -> None:
    """Write `source` with `count` training and unlabelled images each, and a quarter as many to validate and test."""
    content = data.read(source)
    counts = {"training": count, "unlabelled": count}
    write_sublist(source, target, {name: content[name][: counts.get(name, max(count // 4, 1))] for name in LISTS})


def _budget(text: str) -> Budget:
    return None if text == "all" else int(text) if text.isdigit() else text.replace("-", " ")


if __name__ == "__main__":
    origin, wanted, result = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    try:
        if wanted.startswith("limit-"):
            few_images(origin, int(wanted.removeprefix("limit-")), result)
        else:
            first_images(origin, _budget(wanted), result)
    except TskdError as error:
        sys.exit(f"error: {error}")
