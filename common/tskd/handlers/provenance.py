"""What a model was made of: the data it was trained on and the teacher that taught it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tskd.data import fingerprint, read


def provenance(settings: Mapping[str, Any], run: str | Path | None = None) -> dict[str, Any]:
    """Return a run's origin for versions.json: {"data": {...}, "teacher": ...}, without data where none is named.

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
    return {"data": data, "teacher": teacher_of(settings)}


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
