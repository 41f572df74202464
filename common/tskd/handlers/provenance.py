"""What a model was made of: the data it was trained on and the teacher that taught it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tskd.data import fingerprint, read
from tskd.data.budget import split_training


def provenance(settings: Mapping[str, Any], run: str | Path | None = None) -> dict[str, Any]:
    """Return a run's origin for versions.json: {"data": {...}, "images": {...}, "teacher": ...}.

    Without a dataset.json only the teacher is there.

    Args:
        settings: of the training, with its paths.
        run: its folder. Where this and the data lie below the current directory, `data` says how one leads to the other
            ("file"); other paths may tell who ran it and where, and are not recorded.
    """
    file = settings.get("dataset_file")
    if not file or not Path(file).is_file():
        return {"teacher": teacher_of(settings)}
    data = describe_data(file)
    here = Path.cwd()
    if run is not None and all(here in path.resolve().parents for path in (Path(file), Path(run))):
        data["file"] = os.path.relpath(Path(file).resolve(), Path(run).resolve())
    return {"data": data, "images": count_images(settings), "teacher": teacher_of(settings)}


def count_images(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return how many images a model has learned from: labelled (and of how many patients), unlabelled, synthetic.

    Args:
        settings: of the training, with its paths. Its images without labels are those of `transfer_files`, or of the
            training before it, whose versions.json lies beside its `init_weights`.
    """
    file = Path(settings["dataset_file"])
    labelled, _ = split_training(read(file)["training"], settings.get("num_labelled"), file)
    counts = {
        "labelled": len(labelled),
        "labelled_patients": len({entry["group"] for entry in labelled}),
        "unlabelled": 0,
        "synthetic": 0,
    }
    for path in settings.get("transfer_files") or []:
        content = read(path)
        images = len(content["training"]) + len(content["unlabelled"])
        if str(content.get("provenance", {}).get("source", "")).startswith("synthetic"):
            counts["synthetic"] += images
        else:
            counts["unlabelled"] += images - (len(labelled) if Path(path).resolve() == file.resolve() else 0)
    if (chosen := settings.get("max_confident_synthetic")) is not None:
        counts["synthetic"] = min(counts["synthetic"], int(chosen))
    if not settings.get("transfer_files") and (before := settings.get("init_weights")):
        earlier = _read(Path(before).parent.parent / "versions.json").get("images", {})
        counts |= {part: earlier[part] for part in ("unlabelled", "synthetic") if part in earlier}
    return counts


def describe_data(dataset_file: str | Path) -> dict[str, Any]:
    """Return what a model has to know of a data set: name, labels, channels, modality, intensity, licence, sha256."""
    content = read(dataset_file)
    return {
        **{key: content.get(key) for key in ("name", "labels", "channels", "modality", "intensity")},
        "licence": content.get("provenance", {}).get("licence", "not stated"),
        "sha256": fingerprint(dataset_file),
    }


def teacher_of(settings: Mapping[str, Any]) -> str | None:
    """Return the foundation model behind a training.

    Args:
        settings: of the training, with its paths: a teacher has `vfm`; a student `soft_labels`, whose manifests name
            the model, or `init_weights`, beside which lies the versions.json of the training before.

    Returns:
        A name such as "mobile_sam"; several, joined by commas, of a committee; "" for a student that no teacher has
        taught; None where that is not known, such as for soft labels of another bundle.
    """
    if settings.get("vfm"):
        return str(settings["vfm"])
    if labels := settings.get("soft_labels"):
        manifests = [_read(folder / "manifest.json") for folder in _folders(labels)]
        names = {manifest.get("preprocessing", {}).get("vfm") for manifest in manifests}
        return None if None in names else ",".join(sorted(names))
    if before := settings.get("init_weights"):
        return _read(Path(before).parent.parent / "versions.json").get("teacher")
    return ""


def _folders(labels: Any) -> list[Path]:
    """Return a folder, the folders of a teacher, or those of several teachers as lists in a list."""
    if isinstance(labels, str | Path):
        return [Path(labels)]
    return [folder for each in labels for folder in _folders(each)]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
