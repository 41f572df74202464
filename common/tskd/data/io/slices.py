"""Axial slices of a volume as 8-bit PNG files."""

import os
from pathlib import Path

import numpy as np

from tskd.data.datalist import IGNORE
from tskd.data.io.image_files import write_picture
from tskd.errors import TskdError


def write_slices(
    folder: str | os.PathLike[str],
    group: str,
    image: np.ndarray,
    label: np.ndarray | None = None,
    case: str | None = None,
) -> list[dict[str, str]]:
    """Write every slice `[:, :, k]` of a volume, and of its label, as PNG under `folder`/slices.

    A PNG holds the transposed slice (row = y, column = x), so MONAI's PILReader gives back `volume[:, :, k]`. Slices
    with the same grey everywhere (padding at the end of a scan) are left out: they would use up labels and teach
    nothing. A slice that nobody has annotated, 255 all over, is one without a label.

    Args:
        folder: folder of the dataset.json.
        group: patient code.
        image: [X, Y, Z] in LPS order, float in [0, 1]; stored as round(255 x).
        label: uint8 [X, Y, Z], class index or 255 for unlabelled pixels; None for an unlabelled patient.
        case: name of the scan, the patient's code by default; slice k becomes case `<case>_<k>` with three digits.

    Returns:
        Entries {image, label?, group, case} with paths relative to `folder`.

    Raises:
        TskdError: shapes differ, or intensities outside [0, 1].
    """
    if label is not None and label.shape != image.shape:
        raise TskdError(f"patient {group}: expected a label of the image's shape {image.shape}, found {label.shape}.")
    if not (image.min() >= 0 and image.max() <= 1):
        raise TskdError(f"patient {group}: expected intensities in [0, 1], found {image.min()} to {image.max()}.")
    grey = np.rint(image * 255).astype(np.uint8)
    Path(folder, "slices").mkdir(parents=True, exist_ok=True)
    entries = []
    for k in range(image.shape[2]):
        if grey[:, :, k].min() == grey[:, :, k].max():
            continue
        name = f"{case or group}_{k:03d}"
        entry = {"image": f"slices/{name}.png"}
        write_png(Path(folder, entry["image"]), grey[:, :, k])
        if label is not None and (label[:, :, k] != IGNORE).any():
            entry["label"] = f"slices/{name}_label.png"
            write_png(Path(folder, entry["label"]), label[:, :, k])
        entries.append({**entry, "group": group, "case": name})
    return entries


def write_png(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Write uint8 pixels [X, Y] as a grey PNG whose columns are x."""
    write_picture(Path(path), pixels.astype(np.uint8).T)
