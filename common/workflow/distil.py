"""Soft labels, distillation and fine-tuning as three commands, for `tskd distil`."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.data import entries, read
from common.distillation import add_soft_labels
from common.errors import TskdError
from common.workflow.commands import STUDENT, TEACHER, bundle_command, config_files


@dataclass(frozen=True)
class Distillation:
    """What `tskd distil` is asked for.

    Args:
        dataset_dir: folder with dataset.json.
        teacher: `output_dir` of the teacher's training, with versions.json and models/model.pt.
        output: folder to write: soft_labels, distilled and tskd, whose models/model.pt is the result.
        num_labelled: the labelled budget, None for all of the training list.
        transfer_files: more dataset.json files to learn from, such as that of synthetic images.
        overlays: names of overlays of train.json for both trainings, such as segresnet or images_2d.
        every: keys for both trainings.
        distil: keys for the distillation.
        fine_tune: keys for the fine-tuning.
    """

    dataset_dir: Path
    teacher: Path
    output: Path
    num_labelled: int | None = None
    transfer_files: Sequence[Path] = ()
    overlays: Sequence[str] = ()
    every: Mapping[str, str] = field(default_factory=dict)
    distil: Mapping[str, str] = field(default_factory=dict)
    fine_tune: Mapping[str, str] = field(default_factory=dict)

    def commands(self) -> dict[str, list[str]]:
        """The three commands by name, in order.

        Raises:
            TskdError: where the teacher's run or a config is missing.
        """
        settings, data = self._teacher_settings(), read(self._dataset_file)
        output, model = self.output.resolve(), self.teacher.resolve() / "models"
        soft = {"soft_labels": output / "soft_labels"}
        study = {"dataset_dir": self.dataset_dir.resolve(), "num_classes": len(data["labels"])}
        budget = {} if self.num_labelled is None else {"num_labelled": self.num_labelled}
        files, channels = [str(file) for file in self._files], {"in_channels": data["channels"]}
        teacher = {key: settings[key] for key in ("vfm", "image_size")} | {"model_dir": model, "dataset_files": files}
        student = {**study, **channels, **budget, **self.every}
        first = {"teacher_model": model / "model.pt", "transfer_files": files, "output_dir": output / "distilled"}
        second = {
            "init_weights": output / "distilled" / "models" / "model.pt", "learning_rate": 0.0003,
            "output_dir": output / "tskd", "model_dir": output / "tskd" / "models",
        }  # fmt: skip
        return {
            "soft labels": _command(
                TEACHER, ["soft_labels"], {**study, **channels, **soft, **teacher, "output_dir": output}
            ),
            "distillation": _command(STUDENT, ["distill", *self.overlays], {**student, **soft, **first, **self.distil}),
            "fine-tuning": _command(STUDENT, self.overlays, {**student, **second, **self.fine_tune}),
        }

    def missing_soft_labels(self) -> bool:
        """Whether any image to learn from has no soft labels of this teacher yet."""
        images = [entry for file in self._files for entry in entries(file, "transfer")]
        try:
            add_soft_labels(images, self.output / "soft_labels", teacher=self.teacher / "models" / "model.pt")
        except TskdError:
            return True
        return False

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
        return settings


def _command(bundle: str, overlays: Sequence[str], keys: Mapping[str, object]) -> list[str]:
    configs = ["train", *overlays]
    if missing := [file for file in config_files(bundle, configs) if not Path(file).is_file()]:
        raise TskdError(f"expected config files, not found: {', '.join(missing)}")
    return [sys.executable, "-m", *bundle_command(bundle, configs, keys)]


def distil(request: Distillation, dry_run: bool = False) -> Path:
    """Prints each command and runs it; soft labels that are there already are not written again.

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
        if name == "soft labels" and not request.missing_soft_labels():
            print("# all written before", flush=True)
        elif subprocess.run(command).returncode != 0:
            raise TskdError(f"{name} failed, see above. The same command goes on from the last epoch that it finished.")
    return request.output / "tskd" / "models" / "model.pt"
