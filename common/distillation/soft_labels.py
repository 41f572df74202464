"""Soft labels: what the teacher says about every image, written once, read in every epoch of the student.

Layout of a folder: `<case>.safetensors` with `logits` (C x 4h x 4w, float16) and, if asked, `embedding` (256 x h x w,
float16), and `manifest.json`: the teacher's sha256, the preprocessing, and for each case the sha256 of its image file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import MapTransform
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from common.errors import TskdError

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"


def sha256(path: str | Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


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

    Returns:
        Path of the manifest.

    Raises:
        TskdError: when the folder holds soft labels of another teacher or preprocessing, or case names repeat.
    """
    output_dir = Path(output_dir)
    cases = [entry["case"] for entry in entries]
    if repeated := sorted({case for case in cases if cases.count(case) > 1}):
        raise TskdError(f"soft labels: expected unique case names, found more than once: {repeated[:5]}")
    manifest = _open_manifest(output_dir, sha256(teacher), description, embedding)
    images = {entry["case"]: sha256(entry["image"]) for entry in entries}
    done = manifest["cases"]
    todo = [e for e in entries if done.get(e["case"], {}).get("image") != images[e["case"]]]
    logger.info("%d of %d cases have their soft labels already", len(entries) - len(todo), len(entries))
    loader = DataLoader(_Images(todo, preprocessing), batch_size=batch_size, num_workers=num_workers)
    network.eval().to(device)
    with tqdm(total=len(todo), desc="soft labels", unit="image") as bar, torch.inference_mode():
        for names, batch in loader:
            for case, arrays in zip(names, _predict(network, batch, device, embedding, dtype), strict=True):
                _save(output_dir / f"{case}.safetensors", arrays)
                shapes = {key: list(value.shape) for key, value in arrays.items()}
                done[case] = {"image": images[case], "shapes": shapes}
            bar.update(len(names))
            _write_manifest(output_dir, manifest)
    _write_manifest(output_dir, manifest)
    return output_dir / MANIFEST


def _predict(
    network: torch.nn.Module, batch: torch.Tensor, device: str | torch.device, embedding: bool, dtype: str | None
) -> list[dict[str, torch.Tensor]]:
    batch = batch.to(device, non_blocking=True)
    with torch.autocast(batch.device.type, getattr(torch, dtype or "bfloat16"), enabled=dtype is not None):
        features = network.forward_features(batch)  # type: ignore[operator]
    arrays = {"logits": features["logits_low"].to(torch.float16).cpu()}
    if embedding:
        arrays["embedding"] = features["embedding"].to(torch.float16).cpu()
    return [{key: value[i].contiguous() for key, value in arrays.items()} for i in range(len(batch))]


def _open_manifest(folder: Path, teacher: str, description: Mapping[str, Any], embedding: bool) -> dict[str, Any]:
    manifest = {
        "teacher": teacher,
        "preprocessing": dict(description),
        "embedding": embedding,
        "dtype": "float16",
        "cases": {},
    }
    if not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return manifest
    found = json.loads((folder / MANIFEST).read_text())
    keys = ("teacher", "preprocessing", "embedding", "dtype")
    _refuse_difference(folder, {key: manifest[key] for key in keys}, found)
    return found


def _refuse_difference(folder: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
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
    save_file(arrays, temporary)
    os.replace(temporary, path)


def add_soft_labels(
    entries: Sequence[Mapping[str, Any]],
    folders: str | Path | Sequence[str | Path],
    teacher: str | Path | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Adds the key `soft_labels` (path of the case's file) to datalist entries.

    Args:
        entries: datalist entries with `image` and `case`.
        folders: one or more folders written by `write_soft_labels`, by the same teacher.
        teacher: weights file the soft labels must come from, or None to accept any one teacher.
        preprocessing: values that the manifest's preprocessing must have (a subset of its keys).

    Raises:
        TskdError: naming both values where the teacher or the preprocessing differs, and every case without soft labels
            or whose image has changed since.
    """
    folders = [folders] if isinstance(folders, str | Path) else folders
    manifests = [_read_manifest(Path(folder)) for folder in folders]
    expected = sha256(teacher) if teacher is not None else manifests[0]["teacher"]
    known: dict[str, tuple[Path, str]] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        _refuse_difference(Path(folder), {"teacher": expected}, manifest)
        _refuse_difference(Path(folder), preprocessing or {}, manifest["preprocessing"])
        known |= {case: (Path(folder), info["image"]) for case, info in manifest["cases"].items()}
    problems, result = [], []
    for entry in entries:
        folder, image = known.get(entry["case"], (None, None))
        if folder is None:
            problems.append(f"{entry['case']}: no soft labels")
        elif image != sha256(entry["image"]):
            problems.append(f"{entry['case']}: {entry['image']} has changed since its soft labels were written")
        else:
            result.append({**entry, "soft_labels": str(folder / f"{entry['case']}.safetensors")})
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise TskdError(
            f"soft labels in {', '.join(map(str, folders))} do not cover the data: "
            + "; ".join(problems[:5])
            + more
            + ". Run soft_labels.json of the teacher on this dataset.json."
        )
    return result


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise TskdError(
            f"{folder / MANIFEST}: expected the soft labels' manifest, found none. Run soft_labels.json first"
        )
    return json.loads((folder / MANIFEST).read_text())


class LoadSoftLabelsd(MapTransform):
    """Reads the file under the key `soft_labels` into the keys `logits` and (where wanted) `embedding`.

    Args:
        embedding: whether the embedding is read; a file without one is an error then.

    Shape:
        logits C x 4h x 4w and embedding 256 x h x w, float16.
    """

    def __init__(self, embedding: bool = True) -> None:
        super().__init__(keys=["soft_labels"])
        self.embedding = embedding

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the entry with the arrays in place of the path."""
        entry = dict(data)
        path = entry.pop("soft_labels")
        arrays = load_file(path)
        for key in ("logits", "embedding") if self.embedding else ("logits",):
            if key not in arrays:
                raise TskdError(
                    f"{path}: expected {key!r}, found {sorted(arrays)}. Write soft labels with --embedding true"
                )
            entry[key] = arrays[key]
        return entry


def soft_labels_identity(folders: str | Path | Sequence[str | Path]) -> str:
    """The teacher's sha256 of one or more folders, for the identity of a checkpoint."""
    folders = [folders] if isinstance(folders, str | Path) else folders
    return ",".join(sorted({_read_manifest(Path(folder))["teacher"] for folder in folders}))
