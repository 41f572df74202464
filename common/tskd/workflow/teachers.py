"""Teachers of `tskd distil`: a foundation model's run, a student's run, or a MONAI bundle, and how each one answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tskd.data import fingerprint
from tskd.data.budget import Budget
from tskd.errors import TskdError
from tskd.files import sha256

logger = logging.getLogger(__name__)

SAM, STUDENT_RUN, BUNDLE = "a foundation model", "a student", "a bundle"


@dataclass(frozen=True)
class Teacher:
    """One teacher of a distillation.

    Args:
        folder: `output_dir` of a teacher's or a student's training, or a MONAI bundle.
        kind: SAM, STUDENT_RUN or BUNDLE.
        settings: of its training, or of the bundle's inference.json.
    """

    folder: Path
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """Its weights."""
        return self.folder / "models" / "model.pt"

    def ship_command(self, bundle: Path, dataset_file: Path) -> list[str]:
        """`python -m` arguments that make a student's run a bundle, empty where none has to be made.

        Raises:
            TskdError: another run's bundle is there.
        """
        shipped = bundle / "models" / "model.pt"
        if self.kind != STUDENT_RUN or (shipped.is_file() and sha256(shipped) == sha256(self.model)):
            return []
        if bundle.exists():
            raise TskdError(
                f"{bundle}: expected the bundle of {self.folder}, found another one's. The teacher was trained again: "
                "give another --output, or remove the folder"
            )
        places = ["--run", str(self.folder), "--output", str(bundle), "--dataset-file", str(dataset_file)]
        return ["tskd.cli", "ship", *places, "--force"]  # as a teacher it needs no evaluation

    def soft_label_keys(self, bundle: Path) -> dict[str, Any]:
        """Keys of soft_labels.json that name its network and weights.

        Args:
            bundle: of a student's run, as `ship_command` makes it.
        """
        if self.kind == SAM:
            return {key: self.settings[key] for key in ("vfm", "image_size")}
        size = {"image_size": self.settings["image_size"]} if "image_size" in self.settings else {}
        return {"teacher_bundle": bundle if self.kind == STUDENT_RUN else self.folder, **size}


def read_teacher(folder: Path, dataset_file: Path, num_labelled: Budget) -> Teacher:
    """The teacher in a folder; warns of one that was trained with other data or labels.

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
        size = content.get("image_size")
        return Teacher(folder, BUNDLE, {"image_size": size} if isinstance(size, int) else {})
    settings = json.loads(versions.read_text(encoding="utf-8"))["settings"]
    if "image_size" not in settings:
        raise TskdError(f"{versions}: expected a teacher's settings with image_size, found {list(settings)}")
    _warn_of_other_data(versions, settings, dataset_file, num_labelled)
    return Teacher(folder, SAM if "vfm" in settings else STUDENT_RUN, settings)


def _warn_of_other_data(versions: Path, settings: Mapping[str, Any], dataset_file: Path, num_labelled: Budget) -> None:
    own = {"dataset": fingerprint(dataset_file), "num_labelled": num_labelled}
    for key, value in own.items():
        if key in settings and settings[key] != value:
            logger.warning(
                "%s: the teacher was trained with %s %s, this is %s. If it has seen patients of this validation or "
                "test list, or more labels, the student's numbers are too good.",
                versions, key, settings[key], value,
            )  # fmt: skip
