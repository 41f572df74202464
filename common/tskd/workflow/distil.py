"""Soft labels, distillation and fine-tuning as three commands, for `tskd distil`."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tskd.data import fingerprint, read
from tskd.data.budget import Budget
from tskd.errors import TskdError
from tskd.workflow import warm
from tskd.workflow.commands import STUDENT, TEACHER, bundle_command, config_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Distillation:
    """What `tskd distil` is asked for.

    Args:
        dataset_dir: folder with dataset.json.
        teacher: `output_dir` of the teacher's training, with versions.json and models/model.pt.
        output: folder to write: soft_labels, distilled and tskd, whose models/model.pt is the result.
        num_labelled: the labelled budget: a number of images, "3 patients", or None for all of the training list.
        transfer_files: more dataset.json files to learn from, such as that of synthetic images.
        overlays: names of overlays of train.json for both trainings, such as segresnet or images_2d.
        every: keys for both trainings.
        distil: keys for the distillation.
        fine_tune: keys for the fine-tuning.
        soft_label: keys for the writing of soft labels.
        soft_labels: folder of soft labels, None for the one in `output`.
    """

    dataset_dir: Path
    teacher: Path
    output: Path
    num_labelled: Budget = None
    transfer_files: Sequence[Path] = ()
    overlays: Sequence[str] = ()
    every: Mapping[str, str] = field(default_factory=dict)
    distil: Mapping[str, str] = field(default_factory=dict)
    fine_tune: Mapping[str, str] = field(default_factory=dict)
    soft_label: Mapping[str, str] = field(default_factory=dict)
    soft_labels: Path | None = None

    def commands(self) -> dict[str, list[str]]:
        """The three commands by name, in order. A key that is given wins over a default; paths are this command's.

        Raises:
            TskdError: where the teacher's run or a config is missing, or a key is given that is one of these paths.
        """
        settings, data = self._teacher_settings(), read(self._dataset_file)
        model, distilled, tuned = (
            folder / "models" for folder in (self.teacher.resolve(), self._output / "distilled", self._output / "tskd")
        )
        defaults = {"num_classes": len(data["labels"]), "in_channels": data["channels"]}
        if self.num_labelled is not None:
            defaults["num_labelled"] = self.num_labelled
        places, files = {"dataset_dir": self._dataset_file.parent}, [str(file) for file in self._files]
        soft = {
            **places, "soft_labels": self._soft_labels, "model_dir": model, "dataset_files": files,
            "output_dir": self._output,
        }  # fmt: skip
        first = {
            **places, "soft_labels": self._soft_labels, "teacher_model": model / "model.pt", "transfer_files": files,
            "output_dir": distilled.parent, "model_dir": distilled,
        }  # fmt: skip
        second = {
            **places, "init_weights": distilled / "model.pt", "output_dir": tuned.parent, "model_dir": tuned
        }  # fmt: skip
        teacher = {key: settings[key] for key in ("vfm", "image_size")}
        return {
            "soft labels": _command(TEACHER, ["soft_labels"], {**defaults, **teacher, **self.soft_label}, soft),
            "distillation": _command(
                STUDENT, ["distill", *self.overlays], {**defaults, **self.every, **self.distil}, first
            ),
            "fine-tuning": _command(STUDENT, self.overlays, {**defaults, **self.every, **self.fine_tune}, second),
        }

    @property
    def _output(self) -> Path:
        return self.output.resolve()

    @property
    def _soft_labels(self) -> Path:
        return self._output / "soft_labels" if self.soft_labels is None else self.soft_labels.resolve()

    @property
    def _dataset_file(self) -> Path:
        return self.dataset_dir.resolve() / "dataset.json"

    @property
    def _files(self) -> list[Path]:
        return [self._dataset_file, *(file.resolve() for file in self.transfer_files)]

    def _teacher_settings(self) -> dict[str, Any]:
        versions, model = self.teacher / "versions.json", self.teacher / "models" / "model.pt"
        if missing := [str(path) for path in (versions, model) if not path.is_file()]:
            raise TskdError(
                f"{self.teacher}: expected the output_dir of a teacher's training, with its models in there, "
                f"not found: {', '.join(missing)}"
            )
        settings = json.loads(versions.read_text())["settings"]
        if not {"vfm", "image_size"} <= settings.keys():
            raise TskdError(
                f"{versions}: expected a teacher's settings with vfm and image_size, found {list(settings)}"
            )
        self._warn_of_other_data(versions, settings)
        return settings

    def _warn_of_other_data(self, versions: Path, settings: Mapping[str, Any]) -> None:
        own = {"dataset": fingerprint(self._dataset_file), "num_labelled": self.num_labelled}
        for key, value in own.items():
            if key in settings and settings[key] != value:
                logger.warning(
                    "%s: the teacher was trained with %s %s, this is %s. If it has seen patients of this validation or "
                    "test list, or more labels, the student's numbers are too good.",
                    versions, key, settings[key], value,
                )  # fmt: skip


def _command(
    bundle: str, overlays: Sequence[str], keys: Mapping[str, object], paths: Mapping[str, object]
) -> list[str]:
    configs = ["train", *overlays]
    if taken := sorted(keys.keys() & paths.keys()):
        raise TskdError(
            f"expected keys that tskd distil does not set itself, found {', '.join(taken)}. Say where things are with "
            "--dataset-dir, --teacher, --transfer-file, --soft-labels and --output"
        )
    if missing := [file for file in config_files(bundle, configs) if not Path(file).is_file()]:
        raise TskdError(f"expected config files, not found: {', '.join(missing)}")
    return [sys.executable, "-m", *bundle_command(bundle, configs, {**keys, **paths})]


def distil(request: Distillation, dry_run: bool = False) -> Path:
    """Prints each command and runs it.

    That of the soft labels keeps those that are there already, and refuses a folder of another teacher or another
    preprocessing.

    Args:
        request: what is asked for.
        dry_run: print only.

    Returns:
        The fine-tuned student's weights.

    Raises:
        TskdError: as `Distillation.commands`, or naming the command that failed.
    """
    for name, command in request.commands().items():
        print(f"# {name}\n{shlex.join(['python', *command[1:]])}", flush=True)
        if dry_run:
            continue
        if warm.start(command[2:], None, os.environ).wait() != 0:
            raise TskdError(
                f"{name} failed, see above. Once that is mended, the same command goes on from the last epoch that was "
                "finished; --set resume=never starts anew."
            )
    return request.output / "tskd" / "models" / "model.pt"
