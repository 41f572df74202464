"""A picture of what the random augmentation of a config makes of images, for `tskd preview-augmentation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tskd.data import entries, read
from tskd.data.tint import blend, colour
from tskd.errors import TskdError, user_message
from tskd.files import atomic
from tskd.options import refuse_unknown
from tskd.workflow.commands import STUDENT, TEACHER, config_files

IMAGES, SAMPLES = 4, 4  # rows of the picture, and augmented samples in each


@dataclass(frozen=True)
class Preview:
    """Which images are augmented, and by which config.

    Args:
        dataset_file: dataset.json with labelled training images.
        teacher: the teacher's training in place of the student's.
        overlays: configs of the bundle on train.json, as the training takes them; with `semi` the strong view is shown.
        overrides: keys of the config, such as {"augmentation#modality": "dermoscopy", "image_size": 256}.
        seed: of the draws.
    """

    dataset_file: Path
    teacher: bool = False
    overlays: Sequence[str] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def write_preview(preview: Preview, target: Path) -> None:
    """Draw four training images, each as it is and four times augmented, with the outlines of their structures.

    Raises:
        TskdError: no labelled training image, an overlay that does not exist, or an unknown key of the augmentation.
    """
    steps, preprocessing = _augmentation(preview)
    items = [preprocessing(entry) for entry in _chosen(preview.dataset_file)]
    batch = {key: torch.stack([torch.as_tensor(item[key]) for item in items]) for key in ("image", "label")}
    torch.manual_seed(preview.seed)
    samples = [batch]
    for _ in range(SAMPLES):
        sample = dict(batch)
        for step in steps:
            sample = step(sample)
        samples.append(sample)
    _draw(preview, samples, target)


def _augmentation(preview: Preview) -> tuple[list[Any], Any]:
    """Return the augmentations of a config one after the other, and the preprocessing of its labelled images."""
    from monai.bundle import ConfigParser

    bundle = TEACHER if preview.teacher else STUDENT
    if missing := [f for f in config_files(bundle, preview.overlays) if not Path(f).is_file()]:
        raise TskdError(f"overlay: expected a config of {bundle}, found no {', '.join(missing)}")
    channels = read(preview.dataset_file)["channels"]
    run_keys = {"dataset_file": str(preview.dataset_file.resolve()), "in_channels": channels, "device": "cpu"}
    plain, full = ConfigParser(), ConfigParser()
    plain.read_config(list(config_files(bundle, ["train"])))
    full.read_config(list(config_files(bundle, ["train", *preview.overlays])))
    refuse_unknown(preview.overrides, full.get(), "--set")
    for key, value in {**run_keys, **preview.overrides}.items():
        full.set(value, key)
        if key.split("#")[0] in plain.get():  # else a key of an overlay
            plain.set(value, key)
    try:
        steps = [full.get_parsed_content(key) for key in ("augmentation", "strong_view") if key in full.get()]
        return steps, plain.get_parsed_content("train#preprocessing")
    except RuntimeError as error:  # of MONAI, where a part of the config cannot be made
        raise TskdError(user_message(error) or f"{bundle}: {error}") from error


def _chosen(dataset_file: Path) -> list[dict[str, str]]:
    """Return the first labelled images that show most structures among the first sixty, in the order of the list."""
    labelled = entries(dataset_file, "labelled")[:60]
    shown = [len(np.unique(_pixels(entry["label"]))) for entry in labelled]
    best = sorted(sorted(range(len(labelled)), key=lambda index: -shown[index])[:IMAGES])
    return [labelled[index] for index in best]


def _pixels(path: str) -> NDArray[Any]:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def _draw(preview: Preview, samples: Sequence[Mapping[str, Tensor]], target: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows, columns = len(samples[0]["image"]), len(samples)
    figure = Figure(figsize=(2.2 * columns, 2.25 * rows + 0.6), layout="constrained")
    for row in range(rows):
        for column, sample in enumerate(samples):
            axes = figure.add_subplot(rows, columns, row * columns + column + 1)
            image, label = sample["image"][row].numpy(), sample["label"][row, 0].numpy()
            rows_first = image[0].T if len(image) == 1 else image.transpose(2, 1, 0)
            axes.imshow(blend(rows_first, label.T, 0.1, (0.0, 1.0)))
            axes.set_axis_off()
            if row == 0:
                axes.set_title("as it is" if column == 0 else f"augmented, {column}", fontsize=8)
    content = read(preview.dataset_file)
    names = {int(key): name for key, name in content["labels"].items() if key != "0"}
    handles = [Patch(color=colour(key), label=name) for key, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False, fontsize=8)
    with atomic(target) as draft:
        figure.savefig(draft, dpi=110, format="png")
