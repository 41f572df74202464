"""What a student learns from, as hashes that bind a checkpoint to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.data import fingerprint
from tskd.distillation.soft_labels.read import soft_labels_identity
from tskd.distillation.transfer_set import transfer_identity


def training_fingerprints(dataset_file: str | Path, data: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what identifies the files of a training, wherever they lie.

    Args:
        dataset_file: dataset.json.
        data: entries of the training, those of `tskd.data.entries`, `transfer_entries` or `add_teachers`.

    Returns:
        `dataset`, the sha256 of dataset.json; of a transfer set also `transfer` (which images, and their content); with
        soft labels also `soft_labels` (teachers, and how the images were put to them).
    """
    prints = {"dataset": fingerprint(dataset_file)}
    if data and all("part" in entry for entry in data):
        prints["transfer"] = transfer_identity(data)
    files = [entry["soft_labels"] for entry in data if "soft_labels" in entry]
    if files and isinstance(files[0], str):
        prints["soft_labels"] = soft_labels_identity(sorted({str(Path(file).parent) for file in files}))
    elif files:
        teachers = [sorted({str(Path(file).parent) for file in of_one}) for of_one in zip(*files, strict=True)]
        prints["soft_labels"] = soft_labels_identity(teachers, [1.0] * len(teachers))
    return prints
