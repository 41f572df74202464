"""What is in a prepared data set: counts of each list, and a sheet of images with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tskd.data.budget import split_training
from tskd.data.datalist import IGNORE
from tskd.data.tint import blend, colour
from tskd.files import atomic

SHOWN = 12  # images of the sheet


def counts(file: Path, content: Mapping[str, Any]) -> list[str]:
    """Return a line for each list: patients, images, and the pixels or voxels of each structure."""
    lines = []
    for name in ("training", "unlabelled", "validation", "test"):
        entries = content[name]
        if not entries:
            continue
        sizes: dict[int, int] = {}
        for entry in entries:
            if entry.get("label") and name != "unlabelled":
                for value, number in zip(
                    *np.unique(_read(file.parent / entry["label"]), return_counts=True), strict=True
                ):
                    sizes[int(value)] = sizes.get(int(value), 0) + int(number)
        patients = len({entry["group"] for entry in entries})
        volumes = all(entry["image"].endswith((".nii", ".nii.gz")) for entry in entries)
        unit = "voxels" if volumes else "pixels"
        parts = [f"{content['labels'][key]} {sizes.get(int(key), 0):,}" for key in content["labels"] if key != "0"]
        parts += [f"not annotated {sizes[IGNORE]:,}"] if IGNORE in sizes else []
        what = ("volume" if volumes else "image") + "s" * (len(entries) != 1)
        text = f"  {name}: {patients} patient{'s' * (patients != 1)}, {len(entries)} {what}"
        lines.append(text + (f"; {unit}: {', '.join(parts)}" if sizes else ""))
    return lines


def never_labelled(file: Path, content: Mapping[str, Any], budget: int | str | None) -> list[str]:
    """Return the structures that none of the labelled training images of a budget has, which nothing can learn then.

    Args:
        file: dataset.json.
        content: of it.
        budget: number of images, "N patients", or None for all.
    """
    missing = {int(key): name for key, name in content["labels"].items() if key != "0"}
    for entry in split_training(content["training"], budget, file)[0]:
        if not missing:
            break
        present = np.unique(_read(file.parent / entry["label"])).tolist()
        missing = {key: name for key, name in missing.items() if key not in present}
    return list(missing.values())


def overlay_sheet(file: Path, content: Mapping[str, Any], target: Path) -> None:
    """Draw the first training images with their labels, filled and outlined in one colour a structure."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    entries = [entry for entry in content["training"] if entry.get("label")][:SHOWN]
    columns = min(4, max(len(entries), 1))
    rows = -(-max(len(entries), 1) // columns)
    figure = Figure(figsize=(2.8 * columns, 2.9 * rows + 0.5), layout="constrained")
    for number, entry in enumerate(entries):
        axes = figure.add_subplot(rows, columns, number + 1)
        image, label = _read(file.parent / entry["image"]), _read(file.parent / entry["label"])
        axes.imshow(blend(image, label))
        axes.set_title(entry["case"][-34:], fontsize=7)
        axes.set_axis_off()
    names = {int(key): name for key, name in content["labels"].items() if key != "0"}
    handles = [Patch(color=colour(key), label=name) for key, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False, fontsize=8)
    with atomic(target) as draft:
        figure.savefig(draft, dpi=110, format="png")


def _read(path: Path) -> NDArray:
    if path.name.endswith((".nii", ".nii.gz")):
        import nibabel as nib

        return np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
    with Image.open(path) as image:
        return np.asarray(image)
