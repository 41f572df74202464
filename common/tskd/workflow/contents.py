"""What is in a prepared data set: counts of each list, and a sheet of images with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tskd.files import atomic

# one colour a structure, told apart by colour-blind readers too (Okabe and Ito), then again from the first
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
IGNORED = 255
SHOWN = 12  # images of the sheet


def counts(file: Path, content: Mapping[str, Any]) -> list[str]:
    """A line for each list: patients, images, and the pixels or voxels of each structure."""
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
        parts += [f"not annotated {sizes[IGNORED]:,}"] if IGNORED in sizes else []
        what = "volumes" if volumes else "images"
        text = f"  {name}: {patients} patients, {len(entries)} {what}"
        lines.append(text + (f"; {unit}: {', '.join(parts)}" if sizes else ""))
    return lines


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


def colour(structure: int) -> str:
    """The colour of a class index from 1 on."""
    return COLOURS[(structure - 1) % len(COLOURS)]


def blend(image: NDArray, label: NDArray, strength: float = 0.35) -> NDArray:
    """An image [H, W] or [H, W, 3] with its structures tinted and outlined, as [H, W, 3] in [0, 1]."""
    low, high = np.percentile(image, [0.5, 99.5])
    scaled = np.clip((image.astype(float) - low) / max(high - low, 1e-6), 0, 1)
    picture = scaled[..., :3] if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)
    picture = picture.copy()
    for value in np.unique(label[(label > 0) & (label != IGNORED)]):
        mask = label == value
        tint = np.array([int(colour(int(value))[k : k + 2], 16) / 255 for k in (1, 3, 5)])
        picture[mask] = (1 - strength) * picture[mask] + strength * tint
        inner = mask.copy()
        for axis in (0, 1):
            for shift in (1, -1):
                inner &= np.roll(mask, shift, axis)
        picture[mask & ~inner] = tint
    return picture


def _read(path: Path) -> NDArray:
    if path.name.endswith((".nii", ".nii.gz")):
        import nibabel as nib

        return np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
    with Image.open(path) as image:
        return np.asarray(image)
