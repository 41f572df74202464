"""The images that a student learns from: labelled, unlabelled and synthetic, and how many of each are in a batch."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from os.path import realpath
from pathlib import Path
from typing import Any

import torch
from monai.transforms import MapTransform

from tskd.data import entries, read
from tskd.data.budget import Budget
from tskd.data.datalist import IGNORE
from tskd.data.hashing import content_hashes, held_out_contents
from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.files import sha256

logger = logging.getLogger(__name__)

PARTS = ("labelled", "unlabelled", "synthetic")


def transfer_entries(
    files: Sequence[str | PathLike[str]],
    dataset_file: str | PathLike[str],
    num_labelled: Budget = None,
    with_labels: bool = False,
) -> list[dict[str, str]]:
    """Return training and unlabelled images of several data sets, each marked with the part that it belongs to.

    "labelled" are the training images of `dataset_file` within its budget; "synthetic" are the images of data sets
    whose provenance says `"source": "synthetic..."`, as ours does; all others are "unlabelled".

    Args:
        files: dataset.json files to learn from.
        dataset_file: the one whose labels may be used.
        num_labelled: the labelled budget, as `tskd.data.entries` takes it; None for all of its training list.
        with_labels: whether the labelled entries keep their key `label`.

    Returns:
        Entries {image, label?, group, case, part}, the parts one after the other.

    Raises:
        TskdError: as `tskd.data.entries`; an image or a patient of another file is in the validation or test list of
            `dataset_file`, or was seen by the model that drew synthetic images; an image twice; other channels; or
            labels that are asked for where none is.
    """
    by_part: dict[str, list[dict[str, str]]] = {part: [] for part in PARTS}
    budget = entries(dataset_file, "labelled", num_labelled) if num_labelled != 0 else []
    labelled = {realpath(entry["image"]): entry for entry in budget}  # one file, whichever list names it
    channels = read(dataset_file)["channels"]
    foreign = [file for file in files if Path(file).resolve() != Path(dataset_file).resolve()]
    held_out = held_out_contents(dataset_file) if foreign else {}  # its own lists are kept apart where they are read
    for file in files:
        if (count := read(file)["channels"]) != channels:
            raise TskdError(f"{file}: expected images of {channels} channels as in {dataset_file}, found {count}")
        if file in foreign:
            _refuse_held_out(file, dataset_file, held_out)
        provenance = read(file)["provenance"]
        synthetic = str(provenance.get("source", "")).startswith("synthetic")
        for entry in entries(file, "transfer"):
            own_labelled = labelled.get(realpath(entry["image"]))
            part = "labelled" if own_labelled else "synthetic" if synthetic else "unlabelled"
            entry = own_labelled if own_labelled and with_labels else entry
            by_part[part].append({**entry, "part": part})
    listed = [entry for part in PARTS for entry in by_part[part]]
    if twice := [image for image, count in Counter(realpath(entry["image"]) for entry in listed).items() if count > 1]:
        raise TskdError(f"transfer_files: expected each image once, found {len(twice)} twice, such as {twice[0]}")
    if with_labels and not by_part["labelled"]:
        raise TskdError(
            f"labelled_weight: expected labelled images among {', '.join(map(str, files))}, found none; add "
            f"{dataset_file} to transfer_files with a num_labelled above 0, or leave labelled_weight at 0"
        )
    return listed


def labelled_entries(
    dataset_file: str | PathLike[str], num_labelled: Budget, synthetic_file: str | PathLike[str]
) -> list[dict[str, str]]:
    """Return the labelled images of a data set, and synthetic ones that were drawn to label maps, to train on both.

    Raises:
        TskdError: as `tskd.data.entries`, or synthetic images of a model that has seen what is held out.
    """
    _refuse_held_out(synthetic_file, dataset_file, held_out_contents(dataset_file))
    return entries(dataset_file, "labelled", num_labelled) + entries(synthetic_file, "labelled")


def _refuse_held_out(file: str | PathLike[str], dataset_file: str | PathLike[str], held_out: Mapping[str, str]) -> None:
    """Raise TskdError where `file` shows what is held out, by its pixels or, in another split of the data, patient."""
    dataset, images, problems = read(dataset_file), entries(file, "transfer"), []
    listed = [(name, entry) for name in ("validation", "test") for entry in dataset[name]]
    if read(file)["name"] == dataset["name"]:
        groups = {entry["group"]: name for name, entry in listed}
        problems += [
            f"patient {g!r} of '{groups[g]}'" for g in sorted({entry["group"] for entry in images} & groups.keys())
        ]
    intensity = Intensity.of(dataset_file)
    for entry in images if held_out else ():
        shown = filter(None, map(held_out.get, content_hashes(entry["image"], intensity)))
        problems += [f"{entry['case']!r}, which is {image}" for image in shown]
    provenance = read(file)["provenance"]
    if str(provenance.get("source", "")).startswith("synthetic") and not provenance.get("trained_on"):
        logger.warning(
            "%s does not say which images its generator was trained on: that none of them is in the validation or test "
            "list of %s could not be checked",
            file,
            dataset_file,
        )
    drawn = filter(None, map(held_out.get, provenance.get("trained_on") or ()))
    problems += [f"images drawn by a model that was trained on {image}" for image in drawn]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise TskdError(
            f"{file}: expected nothing of the validation and test lists of {dataset_file}, found "
            f"{'; '.join(problems[:5])}{more}. Learning from them would make every measured number too good: take them "
            "out of the file, or leave the file out of transfer_files."
        )


def transfer_identity(data: Sequence[Mapping[str, Any]]) -> str:
    """Return SHA-256 of the images that are learned from, to identify a checkpoint: part, case, content, not the path.

    Args:
        data: entries of `transfer_entries`, in the order in which they are drawn.
    """
    lines = [f"{entry['part']} {entry['case']} {sha256(entry['image'])}" for entry in data]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def batch_counts(
    data: Sequence[Mapping[str, Any]], ratio: Mapping[str, int] | None, batch_size: int
) -> list[tuple[int, int]] | None:
    """Return (number of entries, how many of them in a batch) for each part, as `EpochSampler` takes them.

    Args:
        data: entries of `transfer_entries`.
        ratio: images of each part in a batch, such as {"labelled": 2, "unlabelled": 4, "synthetic": 2}; a part that is
            not named is not drawn. None for images as they come.
        batch_size: size of a batch in one process, the sum of the numbers.

    Raises:
        TskdError: another part, numbers that do not sum to the batch size, or a part without images.
    """
    if ratio is None:
        return None
    counts = {part: sum(entry["part"] == part for entry in data) for part in PARTS}
    if set(ratio) - set(PARTS) or sum(ratio.values()) != batch_size or min(ratio.values()) < 0:
        raise TskdError(
            f"batch_ratio: expected numbers of {', '.join(PARTS)} images that sum to the batch_size {batch_size}, "
            f"found {dict(ratio)}"
        )
    if empty := [part for part, number in ratio.items() if number and not counts[part]]:
        raise TskdError(
            f"batch_ratio: expected images of every part that it draws, found none that are {' or '.join(empty)} "
            f"({counts}). Lower num_labelled, add the data set to transfer_files, or set them to 0"
        )
    return [(counts[part], int(ratio.get(part, 0))) for part in PARTS]


class FillLabeld(MapTransform):
    """Gives entries without a label one that says "not labelled" (255) everywhere, of the image's size.

    Shape:
        image C x H x W; label 1 x H x W, uint8.
    """

    def __init__(self) -> None:
        super().__init__(keys=["label"], allow_missing_keys=True)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry with a label."""
        if "label" in data:
            return dict(data)
        return {**data, "label": torch.full((1, *data["image"].shape[1:]), IGNORE, dtype=torch.uint8)}


def half_labelled(data: Sequence[Mapping[str, Any]], batch_size: int) -> dict[str, int]:
    """Return images of each part in a batch of joint training: half labelled, equal shares of the others there are.

    Args:
        data: entries of `transfer_entries`.
        batch_size: size of a batch in one process.

    Returns:
        As `batch_counts` takes it; labelled images alone where there are no others.
    """
    parts = [part for part in PARTS if part != "labelled" and any(entry["part"] == part for entry in data)]
    unlabelled = batch_size - batch_size // 2
    shares = {part: unlabelled // len(parts) + (number < unlabelled % len(parts)) for number, part in enumerate(parts)}
    return {"labelled": batch_size - sum(shares.values()), **shares}
