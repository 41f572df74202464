"""Soft labels: what the teacher says about every image, written once.

Layout of a folder: `<case>.safetensors` with `logits` (C x 4h x 4w, float16) or `embedding` (256 x h x w, float16) or
both, and `manifest.json`: the teacher's sha256, the preprocessing, and for each case the sha256 of its image file.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from common.errors import TskdError
from common.networks.weight_store import sha256

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"


class _Images(Dataset):
    """Preprocessed images of datalist entries with their case names."""

    def __init__(self, entries: Sequence[Mapping[str, Any]], preprocessing: Any) -> None:
        self.entries, self.preprocessing = entries, preprocessing

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        entry = self.entries[index]
        image = self.preprocessing({"image": entry["image"]})["image"]
        return entry["case"], torch.as_tensor(image).as_subclass(torch.Tensor)


def write_soft_labels(
    network: torch.nn.Module,
    entries: Sequence[Mapping[str, Any]],
    preprocessing: Any,
    output_dir: str | Path,
    teacher: str | Path,
    description: Mapping[str, Any],
    device: str | torch.device = "cpu",
    batch_size: int = 8,
    embedding: bool = True,
    dtype: str | None = None,
    num_workers: int = 0,
    logits: bool = True,
) -> Path:
    """Runs the teacher over `entries` and writes one file a case; cases already there are kept.

    Args:
        network: `PromptFreeSam` with the weights of `teacher` loaded.
        entries: datalist entries with `image` and `case`; case names must be unique.
        preprocessing: MONAI transform from {"image": path} to {"image": c x H x W in [0, 1]}.
        output_dir: folder to write.
        teacher: the teacher's weights file; its sha256 goes to the manifest.
        description: the preprocessing in words and numbers (image size, intensity range, channels), for the manifest.
        device: where the teacher runs.
        batch_size: images at a time.
        embedding: whether the image embedding is written beside the logits.
        dtype: autocast type such as "bfloat16", or None.
        num_workers: processes that load images.
        logits: whether the logits are written; false for a foundation model that has not been tuned to any task.

    Returns:
        Path of the manifest.

    Raises:
        TskdError: when neither logits nor embedding are wanted, the folder holds soft labels of another teacher or
            preprocessing, case names repeat, or a file cannot be written.
    """
    if not (logits or embedding):
        raise TskdError("soft labels: expected logits or embedding to be true, found both false; nothing to write")
    output_dir = Path(output_dir)
    counts = Counter(entry["case"] for entry in entries)
    if repeated := sorted(case for case, count in counts.items() if count > 1):
        raise TskdError(f"soft labels: expected unique case names, found more than once: {repeated[:5]}")
    manifest = _open_manifest(output_dir, sha256(teacher), description, embedding, logits)
    images = {entry["case"]: sha256(entry["image"]) for entry in entries}
    done = manifest["cases"]
    todo = [
        entry
        for entry in entries
        if done.get(entry["case"], {}).get("image") != images[entry["case"]]
        or not case_file(output_dir, entry["case"]).is_file()
    ]
    logger.info("%d of %d cases have their soft labels already", len(entries) - len(todo), len(entries))
    loader = DataLoader(_Images(todo, preprocessing), batch_size=batch_size, num_workers=num_workers)
    network.eval().to(device)
    with tqdm(total=len(todo), desc="soft labels", unit="image") as bar, torch.inference_mode():
        for names, batch in loader:
            for case, arrays in zip(names, _predict(network, batch, device, embedding, dtype, logits), strict=True):
                _save(case_file(output_dir, case), arrays)
                shapes = {key: list(value.shape) for key, value in arrays.items()}
                done[case] = {"image": images[case], "shapes": shapes}
            bar.update(len(names))
            _write_manifest(output_dir, manifest)
    _write_manifest(output_dir, manifest)
    return output_dir / MANIFEST


def case_file(folder: Path, case: str) -> Path:
    """Where the arrays of a case are."""
    return folder / f"{case}.safetensors"


def _predict(
    network: torch.nn.Module,
    batch: torch.Tensor,
    device: str | torch.device,
    embedding: bool,
    dtype: str | None,
    logits: bool,
) -> list[dict[str, torch.Tensor]]:
    batch = batch.to(device, non_blocking=True)
    with torch.autocast(batch.device.type, getattr(torch, dtype or "bfloat16"), enabled=dtype is not None):
        features = network.forward_features(batch)  # type: ignore[operator]
    wanted = {"logits": ("logits_low", logits), "embedding": ("embedding", embedding)}
    arrays = {key: features[name].to(torch.float16).cpu() for key, (name, asked) in wanted.items() if asked}
    return [{key: value[i].contiguous() for key, value in arrays.items()} for i in range(len(batch))]


def _open_manifest(
    folder: Path, teacher: str, description: Mapping[str, Any], embedding: bool, logits: bool
) -> dict[str, Any]:
    manifest = {
        "teacher": teacher,
        "preprocessing": dict(description),
        "embedding": embedding,
        "logits": logits,
        "dtype": "float16",
        "cases": {},
    }
    if not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return manifest
    found = {"logits": True, **json.loads((folder / MANIFEST).read_text())}  # older manifests don't say it
    keys = ("teacher", "preprocessing", "embedding", "logits", "dtype")
    refuse_difference(folder, {key: manifest[key] for key in keys}, found)
    return found


def refuse_difference(folder: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises TskdError with both values of each key of `expected` that is not so in `found`, a part of the manifest."""
    differing = [
        f"{key}: expected {value}, found {found.get(key)}" for key, value in expected.items() if found.get(key) != value
    ]
    if differing:
        raise TskdError(
            f"{folder / MANIFEST} does not match; " + "; ".join(differing) + ". Write the soft labels again "
            "(teacher_segmentation, soft_labels.json) into another folder."
        )


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    temporary = folder / f".{MANIFEST}"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(temporary, folder / MANIFEST)


def _save(path: Path, arrays: dict[str, torch.Tensor]) -> None:
    temporary = path.with_name(f".{path.name}")
    try:
        save_file(arrays, temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
        raise TskdError(
            f"{path}: cannot write the soft labels ({error}). Free disk space and run again: finished cases are kept."
        ) from error
