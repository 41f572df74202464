"""Write the labelled list of a data set in nnU-Net's layout, so that nnU-Net is trained on the same slices."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tskd.data import entries, grouped_folds, load_label, load_volume, read, to_lps, write_slices
from tskd.data.budget import Budget
from tskd.data.datalist import IGNORE
from tskd.data.io.intensity import Intensity
from tskd.data.prepare.nnunet import SPLITS
from tskd.errors import TskdError
from tskd.files import write_json

FOLDS = 5  # as nnU-Net draws where a data set has no validation list

Sliced = dict[str, str]  # image and label with paths, group, case


def write_nnunet(
    dataset_file: str | os.PathLike[str], output: str | os.PathLike[str], num_labelled: Budget = None
) -> Path:
    """Write imagesTr, labelsTr, imagesTs, labelsTs, dataset.json and splits_final.json, all or nothing.

    Every case is an 8-bit PNG: volumes of the validation and test lists are cut into axial slices and scaled as the
    training's are. imagesTr has the training and the validation list, and splits_final.json one fold that tells them
    apart; without a validation list five folds of patients.

    Args:
        dataset_file: dataset.json.
        output: new folder, named as nnU-Net wants it: Dataset001_NAME.
        num_labelled: labelled budget of the training list, as in `tskd.data.entries`.

    Returns:
        The folder.

    Raises:
        TskdError: a folder that is there or has another kind of name.
    """
    output = Path(output).resolve()
    dataset = read(dataset_file)
    if not re.fullmatch(r"Dataset\d{3}_\w+", output.name):
        name = re.sub(r"\W+", "_", dataset["name"])
        raise TskdError(
            f"{output}: expected a folder named as nnU-Net wants it, found {output.name}. Choose for example "
            f"{output.with_name(f'Dataset101_{name}')}"
        )
    if output.exists():
        raise TskdError(f"{output}: expected no such folder, found one. Choose another --output or remove it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".nnunet_") as folder:
        draft, cut = Path(folder) / output.name, Path(folder) / "cut"
        training = entries(dataset_file, "labelled", num_labelled)
        lists = {"training": training, **{name: list(_cut(dataset_file, name, cut)) for name in ("validation", "test")}}
        ignored = any((_pixels(entry["label"]) == IGNORE).any() for section in lists.values() for entry in section)
        ignore = len(dataset["labels"]) if ignored else None
        for section, part in (("training", "Tr"), ("validation", "Tr"), ("test", "Ts")):
            for entry in lists[section]:
                _copy(entry, draft, part, ignore)
        write_json(draft / "dataset.json", _description(dataset, lists, ignore))
        write_json(draft / SPLITS, _splits(lists))
        os.rename(draft, output)
    return output


def _cut(dataset_file: str | os.PathLike[str], section: str, folder: Path) -> Iterator[Sliced]:
    """Yield the pictures of a list, and the slices of its volumes, which are written into `folder`."""
    if not read(dataset_file)[section]:
        return
    scaling = Intensity.of(dataset_file)
    for entry in entries(dataset_file, section):
        if not entry["image"].endswith((".nii", ".nii.gz")):
            yield entry
            continue
        volume, affine = load_volume(entry["image"])
        label, _ = to_lps(load_label(entry["label"], volume.shape, affine), affine)
        image, _ = to_lps(volume, affine)
        for item in write_slices(folder, entry["group"], scaling.scale(image), label, entry["case"]):
            if "label" in item:
                yield {**item, "image": str(folder / item["image"]), "label": str(folder / item["label"])}


def _pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def _copy(entry: Mapping[str, str], draft: Path, part: str, ignore: int | None) -> None:
    image, label = (draft / f"{kind}{part}" for kind in ("images", "labels"))
    for folder in (image, label):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(entry["image"], image / f"{entry['case']}_0000.png")
    mask = _pixels(entry["label"])
    mask = mask if ignore is None else np.where(mask == IGNORE, ignore, mask)
    Image.fromarray(mask.astype(np.uint8)).save(label / f"{entry['case']}.png")


def _description(dataset: Mapping[str, Any], lists: Mapping[str, list[Sliced]], ignore: int | None) -> dict[str, Any]:
    """Return nnU-Net's dataset.json; `tskd` is a key of ours, which it passes over."""
    # a channel named CT makes nnU-Net clip and scale again, and these are scaled already
    grey = "windowed CT" if dataset["modality"] == "CT" else dataset["modality"]
    channels = ("R", "G", "B") if dataset["channels"] == 3 else (grey,)
    return {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": {name: int(value) for value, name in dataset["labels"].items()}
        | ({} if ignore is None else {"ignore": ignore}),
        "numTraining": len(lists["training"]) + len(lists["validation"]),
        "file_ending": ".png",
        "name": dataset["name"],
        "licence": dataset["provenance"].get("licence", "not stated"),
        "tskd": {"groups": {entry["case"]: entry["group"] for section in lists.values() for entry in section}},
    }


def _splits(lists: Mapping[str, list[Sliced]]) -> list[dict[str, list[str]]]:
    training = [entry["case"] for entry in lists["training"]]
    if lists["validation"]:
        return [{"train": training, "val": [entry["case"] for entry in lists["validation"]]}]
    groups = {entry["case"]: entry["group"] for entry in lists["training"]}
    count = min(FOLDS, len(set(groups.values())))
    if count < 2:
        return [{"train": training, "val": training}]
    return [
        {
            "train": [case for case in training if groups[case] not in held],
            "val": [c for c in training if groups[c] in held],
        }
        for held in map(set, grouped_folds(groups.values(), count, 0))
    ]
