"""The manifest of a folder of soft labels: who made them, of which images; written by one process or by several."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Transform

from tskd.errors import TskdError
from tskd.files import write_json

MANIFEST = "manifest.json"
_OLDER: dict[str, Any] = {  # what older manifests don't say
    "logits": True, "tta": None, "fold_teachers": [], "transforms": None, "autocast": None, "grid": None,
}  # fmt: skip


def case_file(folder: Path, case: str) -> Path:
    """Return where the arrays of a case are."""
    return folder / f"{case}.safetensors"


def stored(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder or, of one that is begun, a part of it; None where there is neither."""
    files = [file for file in (folder / MANIFEST, *sorted(folder.glob("manifest.*.json"))) if file.is_file()]
    return {**_OLDER, **json.loads(files[0].read_text(encoding="utf-8"))} if files else None


def transforms_sha256(preprocessing: Any) -> str:
    """Return SHA-256 of the types and settings of a chain of MONAI's transforms."""
    return hashlib.sha256(json.dumps(_settings(preprocessing), sort_keys=True).encode()).hexdigest()


def _settings(value: Any) -> Any:
    if isinstance(value, Transform):
        return {type(value).__name__: {name: _settings(item) for name, item in vars(value).items()}}
    if isinstance(value, Mapping):
        return {str(name): _settings(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_settings(item) for item in value]
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, type | torch.dtype):
        return str(value)
    return type(value).__name__  # readers and the like


def header_sha256(manifest: Mapping[str, Any]) -> str:
    """Return SHA-256 of what soft labels depend on besides images: teachers, preprocessing, precision, views, grid."""
    keys = ("teacher", "fold_teachers", "preprocessing", "transforms", "autocast", "tta")
    told = {key: manifest.get(key, _OLDER.get(key)) for key in keys}
    told |= {key: manifest[key] for key in ("grid",) if manifest.get(key) is not None}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def refuse_difference(folder: Path, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    """Raise TskdError with both values of each key of `expected` that is not so in `actual`, a part of the manifest."""
    differing = [
        f"{key}: expected {value}, found {actual.get(key)}"
        for key, value in expected.items()
        if actual.get(key) != value
    ]
    if differing:
        raise TskdError(
            f"{folder / MANIFEST} does not match; " + "; ".join(differing) + ". Write the soft labels again "
            "(teacher_segmentation, soft_labels.json) into another folder."
        )


class Manifest:
    """What has been written into a folder, kept on disk as the work goes on.

    Each process writes a part `manifest.<rank>.json`, and whoever finds at its end that every case is there joins the
    parts: `manifest.json` is there once all is done. A run that was killed leaves its parts; the next one, with however
    many processes, counts what they list as done.

    Args:
        folder: the folder, made if needed.
        header: what all soft labels of the folder have in common (teacher, preprocessing, ...).
        wanted: case -> what its entry must say (`image`, and `fold` where it has one) to count as done.
        rank: this process.
        world_size: number of processes.

    Raises:
        TskdError: when the folder was begun with another header.
    """

    def __init__(
        self,
        folder: Path,
        header: Mapping[str, Any],
        wanted: Mapping[str, Mapping[str, Any]],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.header, self.wanted = folder, dict(header), wanted
        self.path = folder / f"manifest.{rank}.json"
        self.cases = self._read([*self._parts(), folder / MANIFEST])
        self._written = dict(self.cases) if world_size == 1 else self._read([self.path])

    def done(self, case: str) -> bool:
        """Return whether the case has its file, made of the image as it is now and by its teacher."""
        info = self.cases.get(case, {})
        return _fits(info, self.wanted[case]) and case_file(self.folder, case).is_file()

    def add(self, case: str, shapes: Mapping[str, list[int]]) -> None:
        """Note that the file of a case has been written."""
        self._written[case] = {**self.wanted[case], "shapes": dict(shapes)}

    def save(self) -> None:
        """Write what this process knows, atomically."""
        self._write(self.path, self._written)

    def finish(self) -> bool:
        """Join the parts of all processes into `manifest.json`; False where others have not finished."""
        parts = self._parts()
        self.cases = self._read([*parts, self.folder / MANIFEST])  # in this order: parts vanish once they are joined
        if not all(self.done(case) for case in self.wanted):
            return False
        self._write(self.folder / MANIFEST, self.cases)
        for part in parts:
            part.unlink(missing_ok=True)
        return True

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("manifest.*.json"))

    def _read(self, paths: Sequence[Path]) -> dict[str, Any]:
        """Cases that the files list, as far as they exist; of two entries for a case, the one that is wanted."""
        cases: dict[str, Any] = {}
        for path in paths:
            try:
                stored = {**_OLDER, **json.loads(path.read_text())}
            except FileNotFoundError:
                continue
            refuse_difference(self.folder, self.header, stored)
            for case, info in stored["cases"].items():
                if case not in cases or (case in self.wanted and _fits(info, self.wanted[case])):
                    cases[case] = info
        return cases

    def _write(self, path: Path, cases: Mapping[str, Any]) -> None:
        write_json(path, {**self.header, "cases": dict(sorted(cases.items()))})


def _fits(info: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return {key: value for key, value in info.items() if key != "shapes"} == wanted
