"""Make a dataset folder (images/, labels/, dataset.json) from 2-D images."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tskd import __version__
from tskd.cpus import cpus
from tskd.data import datalist
from tskd.data.io.image_files import mask_turn, read_image, read_mask, write_picture
from tskd.data.prepare.image_checks import Findings, Picture, refuse_shared_images
from tskd.data.prepare.inventory import Inventory
from tskd.data.prepare.volume_writer import preparation
from tskd.data.split import fair_order
from tskd.errors import TskdError


def prepare_images(
    output: str | os.PathLike[str],
    pictures: Sequence[Picture],
    findings: Findings,
    split: Mapping[str, Sequence[str]],
    header: Mapping[str, Any],
    seed: int = 0,
    region: Callable[[np.ndarray], np.ndarray] | None = None,
    inventory: Inventory | None = None,
) -> Path:
    """Write images and labels as 8-bit PNG without metadata, at their own size, and last of all dataset.json.

    Args:
        output: folder for the data set; left as it is if it holds the finished result of the same preparation.
        pictures: the files. Those without a label go to `unlabelled`, or are left out if of a validation or test
            patient.
        findings: what `inspect_images` read in them.
        split: "training", "validation", "test" -> patients.
        header: the keys name, modality, labels and provenance of dataset.json.
        seed: seed of the order of `training`.
        region: image -> bool [rows, columns], the pixels of a validation or test image to score; the labels of the
            others become 255. A picture's own `region` goes before it.
        inventory: what was found beside the pictures, for the provenance.

    Returns:
        Path of dataset.json.

    Raises:
        TskdError: a patient in two lists, no labelled training image, a copy of an image in another list, or an output
            that holds something else.
    """
    home = {group: name for name, groups in split.items() for group in groups}
    if len(home) < sum(map(len, split.values())):
        twice = sorted(group for group, n in Counter(chain(*split.values())).items() if n > 1)
        raise TskdError(
            f"split: expected each patient in one list, found {', '.join(twice[:8])} in two. One patient on both sides "
            "makes every measured number too good: move all images of a patient to one list."
        )
    if not any(picture.label and home[picture.group] == "training" for picture in pictures):
        raise TskdError("training: expected at least one image with a mask, found none. Add some, or split otherwise.")
    refuse_shared_images(pictures, findings.pixels, split)
    held_back = [p for p in pictures if p.label is None and home[p.group] != "training"]
    provenance = {**header["provenance"], "tool": f"tskd {__version__}", "seed": seed}
    if held_back:
        provenance["left_out"] = f"{len(held_back)} unlabelled images of validation and test patients"
    header = {**header, "channels": findings.channels, "provenance": provenance}
    settings = {**header, "split": split, "groups": {picture.case: picture.group for picture in pictures}}
    settings["inputs"] = {"images": findings.pixels, "masks": findings.masks}
    if inventory is not None:
        inventory.leave(
            "unlabelled images of validation and test patients", [picture.image.name for picture in held_back]
        )
        header = {**header, "provenance": {**provenance, "files": str(inventory)}}
    with preparation(output, settings) as needed:
        if needed:
            lists: dict[str, list[dict[str, str]]] = {name: [] for name in datalist.LISTS}
            taken = [picture for picture in pictures if picture.label or home[picture.group] == "training"]

            def write(picture: Picture) -> dict[str, str]:
                section = home[picture.group]
                scored = region if section != "training" else None
                return _write(Path(output), picture, header, findings, scored, section)

            with ThreadPoolExecutor(cpus()) as pool:  # reading and compressing lets other threads run
                for picture, entry in zip(taken, pool.map(write, taken), strict=True):
                    name = home[picture.group]
                    lists["unlabelled" if name == "training" and not picture.label else name].append(entry)
            lists["training"] = fair_order(lists["training"], seed)
            datalist.write(Path(output, "dataset.json"), {**header, **lists})
    return Path(output, "dataset.json")


def _write(
    output: Path,
    picture: Picture,
    header: Mapping[str, Any],
    findings: Findings,
    region: Callable[[np.ndarray], np.ndarray] | None = None,
    section: str = "training",
) -> dict[str, str]:
    """Write the files of one entry; a second observer's label in the test list."""
    image = findings.kept.pop((picture.image, picture.image), None)
    if image is None:
        image = read_image(picture.image, header["channels"])
    entry = {"image": f"images/{picture.case}.png"}
    write_picture(output / entry["image"], image)
    outside = None if region is None else ~region(image)
    if picture.region is not None and section != "training":
        outside = read_mask(picture.region, 1) == 0
    for key, path in (("label", picture.label), ("label_2nd", picture.label_2nd if section == "test" else None)):
        if path is not None:
            mask = findings.kept.pop((picture.image, path), None)
            if mask is None:
                turn = mask_turn(picture.image, path, findings.exif)
                mask = read_mask(path, len(header["labels"]) - 1, turn)
            if outside is not None:
                mask[outside] = datalist.IGNORE
            entry[key] = f"{key.replace('label', 'labels')}/{picture.case}.png"
            write_picture(output / entry[key], mask)
    return {**entry, "group": picture.group, "case": picture.case}
