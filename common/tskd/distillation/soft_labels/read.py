"""Soft labels in the student's datalist: found by case, checked against images and teacher, read as the images are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tskd.distillation.soft_labels.manifest import MANIFEST, case_file, header_sha256, refuse_difference
from tskd.errors import TskdError
from tskd.files import sha256

Folders = str | Path | Sequence[str | Path]  # of the soft labels of one teacher


def add_soft_labels(
    entries: Sequence[Mapping[str, Any]],
    folders: Folders,
    teacher: str | Path | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Add the key `soft_labels` (path of the case's file) to datalist entries.

    Args:
        entries: datalist entries with `image` and `case`.
        folders: one or more folders written by `write_soft_labels`, by the same teacher.
        teacher: weights file the soft labels must come from, or None to accept any one teacher.
        preprocessing: values that the manifest's preprocessing must have (a subset of its keys).

    Raises:
        TskdError: naming both values where the teacher or the preprocessing differs, and every case without soft
            labels, whose file is gone or whose image has changed since.
    """
    folders = [folders] if isinstance(folders, str | Path) else folders
    result, problems = _find(entries, folders, teacher, preprocessing)
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise TskdError(
            f"soft labels in {', '.join(map(str, folders))} do not cover the data: "
            + "; ".join(problems[:5])
            + more
            + ". Run soft_labels.json of the teacher on this dataset.json."
        )
    return result


def _find(
    entries: Sequence[Mapping[str, Any]],
    folders: Sequence[str | Path],
    teacher: str | Path | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Entries with the key `soft_labels`, and a line for each that has none."""
    if not folders:
        raise TskdError("soft labels: expected at least one folder, found none")
    manifests = {Path(folder): _read_manifest(Path(folder)) for folder in folders}
    expected = sha256(teacher) if teacher is not None else next(iter(manifests.values()))["teacher"]
    known: dict[str, dict[str, Path]] = {}  # case -> sha256 of its image -> folder
    first = next(iter(manifests.values()))["preprocessing"]
    alike = {"image_size": first["image_size"]} if "image_size" in first else {}  # their arrays are stacked
    for folder, manifest in manifests.items():
        refuse_difference(folder, {"teacher": expected}, manifest)
        refuse_difference(folder, {"grid": _grid(next(iter(manifests.values())))}, {"grid": _grid(manifest)})
        refuse_difference(folder, {**alike, **(preprocessing or {})}, manifest["preprocessing"])
        for case, info in manifest["cases"].items():
            known.setdefault(case, {})[info["image"]] = folder
    problems, result = [], []
    for entry in entries:
        case, image = entry["case"], sha256(entry["image"])
        if case not in known:
            problems.append(f"{case}: no soft labels")
        elif image not in known[case]:
            problems.append(f"{case}: {entry['image']} has changed since its soft labels were written")
        elif not (path := case_file(known[case][image], case)).is_file():
            problems.append(f"{case}: {path} is gone")
        else:
            result.append({**entry, "soft_labels": str(path)})
    return result, problems


def _grid(manifest: Mapping[str, Any]) -> list[int] | None:
    shapes: list[dict[str, list[int]]] = [info.get("shapes", {}) for info in manifest["cases"].values()]
    return next((shape["logits"][1:] for shape in shapes if "logits" in shape), None)


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise TskdError(
            f"{folder / MANIFEST}: expected the soft labels' manifest, found none. Run soft_labels.json first"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        cases = manifest["cases"].values()
        sound = isinstance(manifest["teacher"], str) and isinstance(manifest["preprocessing"], dict)
        sound = sound and all(isinstance(info["image"], str) for info in cases)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TskdError(
            f"{folder / MANIFEST}: expected the soft labels' manifest, found a damaged one ({error!r}). Delete the "
            "folder and run soft_labels.json again"
        ) from error
    if not sound:
        raise TskdError(f"{folder / MANIFEST}: expected the soft labels' manifest, found other content. Write it again")
    return manifest


def read_soft_labels(path: str | Path, keys: Sequence[str]) -> dict[str, Tensor]:
    """Return the arrays of a case's file: logits C x 4h x 4w and embedding E x h x w, float16.

    Args:
        path: file that `write_soft_labels` has written.
        keys: which of "logits" and "embedding" are wanted.

    Raises:
        TskdError: the file cannot be read, or lacks one of `keys`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
            # copies: a tensor of the file keeps its memory map, of which Linux allows a process 65,530
            arrays = {key: file.get_tensor(key).clone() for key in keys if key in found}
    except (OSError, SafetensorError) as error:
        raise TskdError(f"{path}: cannot read the soft labels ({error}). Delete it and run soft_labels.json") from error
    for key in keys:
        if key not in found:
            raise TskdError(
                f"{path}: expected {key!r}, found {sorted(found)}. Write soft labels with --{key} True, into "
                f"another folder, or do without: weight 0 for the terms that compare the {key}"
            )
    return arrays


def soft_labels_identity(folders: Any, weights: Sequence[float] | None = None) -> str:
    """Return what the soft labels are of, to identify a checkpoint: teachers, and how the images were put to them.

    Args:
        folders: as `tskd.distillation.add_teachers` takes them.
        weights: weight of each teacher, whose order counts then; None for one teacher, whose folders have no order.
    """
    if weights is not None:
        return ";".join(soft_labels_identity(of_one) for of_one in folders)
    folders = [folders] if isinstance(folders, str | Path) else folders
    manifests = [_read_manifest(Path(folder)) for folder in folders]
    return ",".join(sorted({header_sha256(manifest) for manifest in manifests}))
