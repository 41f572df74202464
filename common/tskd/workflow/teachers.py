"""A teacher that is there already: a foundation model's run, a student's run, or a MONAI bundle."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tskd import data
from tskd.data.budget import Budget
from tskd.errors import TskdError
from tskd.export.several_slices import several_slices

logger = logging.getLogger(__name__)

SAM, STUDENT_RUN, BUNDLE = "a foundation model", "a student", "a bundle"


@dataclass(frozen=True)
class Teacher:
    """One teacher of a distillation.

    Args:
        folder: `output_dir` of a teacher's or a student's training, or a MONAI bundle.
        kind: SAM, STUDENT_RUN or BUNDLE.
        settings: of its training, with the keys that its network was given, or of the bundle's inference.json.
    """

    folder: Path
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def warn_of_different_data(self, dataset_file: Path, num_labelled: Budget) -> None:
        """Warn where it was trained with other data or labels than the student will be."""
        for key, value in {"dataset": data.fingerprint(dataset_file), "num_labelled": num_labelled}.items():
            if self.kind != BUNDLE and key in self.settings and self.settings[key] != value:
                logger.warning(
                    "%s: the teacher was trained with %s %s, this is %s. If it has seen patients of this validation or "
                    "test list, or more labels, the student's numbers are too good.",
                    self.folder / "versions.json", key, self.settings[key], value,
                )  # fmt: skip


def read_teacher(folder: Path) -> Teacher:
    """Return the teacher in a folder.

    Raises:
        TskdError: a folder that is none of the three.
    """
    folder = folder.resolve()
    versions, inference = folder / "versions.json", folder / "configs" / "inference.json"
    is_bundle = (folder / "configs").is_dir()
    missing = [str(path) for path in (versions, folder / "models" / "model.pt") if not path.is_file()]
    if is_bundle:
        missing = missing[1:] if str(versions) in missing else missing
    if missing:
        raise TskdError(
            f"{folder}: expected the output_dir of a teacher's training, with its models in there, or a MONAI bundle, "
            f"not found: {', '.join(missing)}"
        )
    if is_bundle:
        content = json.loads(inference.read_text(encoding="utf-8")) if inference.is_file() else {}
        _refuse_several_slices(inference, content)
        size = content.get("image_size")
        return Teacher(folder, BUNDLE, {"image_size": size} if isinstance(size, int) else {})
    made_with = json.loads(versions.read_text(encoding="utf-8"))
    settings = {**made_with["settings"], **made_with.get("network_keys", {})}
    if "mirrored" in made_with:
        settings["mirrored"] = made_with["mirrored"]
    _refuse_several_slices(versions, settings)
    if "image_size" not in settings:
        raise TskdError(f"{versions}: expected a teacher's settings with image_size, found {list(settings)}")
    return Teacher(folder, SAM if "vfm" in settings else STUDENT_RUN, settings)


def _refuse_several_slices(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a student of neighbours or of patches in 3-D; another's bundle may have a `patch_size` in 2-D."""
    several = several_slices(settings)
    if several.get("neighbour_slices") or len(several.get("patch_size", ())) == 3:
        raise TskdError(
            f"{file}: expected a teacher that segments each image by itself, found a student that sees several slices "
            "at once, which cannot write soft labels. Name a teacher's run or a 2-D student's: --teacher RUN"
        )
