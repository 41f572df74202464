"""Soft labels of one or several teachers and the two trainings of a student, as commands, for `tskd distil`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tskd.data import read
from tskd.data.budget import Budget
from tskd.errors import TskdError
from tskd.workflow import warm
from tskd.workflow.commands import STUDENT, TEACHER, bundle_command, config_files
from tskd.workflow.gain import better, expectation
from tskd.workflow.teachers import SAM, Teacher, read_teacher


@dataclass(frozen=True)
class Distillation:
    """What `tskd distil` is asked for.

    Args:
        dataset_dir: folder with dataset.json.
        teachers: `output_dir` of a teacher's or student's training, or a MONAI bundle; of several the probabilities are
            averaged.
        output: folder to write: soft_labels, distilled and tskd, whose models/model.pt is the result; supervised in
            place of distilled where the training is joint.
        num_labelled: the labelled budget: a number of images, "3 patients", or None for all of the training list.
        transfer_files: more dataset.json files to learn from, such as that of synthetic images.
        overlays: names of overlays of train.json for both trainings, such as segresnet or images_2d.
        weights: of several teachers, above 0; None for all alike.
        joint: train on the labels first, then on labels and soft labels together (`joint.json`), in place of the
            paper's order: soft labels first, then fine-tuning on the labels.
        every: keys for both trainings.
        distil: keys for the distillation, or for the joint training.
        fine_tune: keys for the fine-tuning, or for the first training on the labels.
        soft_label: keys for the writing of soft labels.
        soft_labels: folder of soft labels, None for the one in `output`.
    """

    dataset_dir: Path
    teachers: Sequence[Path]
    output: Path
    num_labelled: Budget = None
    transfer_files: Sequence[Path] = ()
    overlays: Sequence[str] = ()
    weights: Sequence[float] | None = None
    joint: bool = False
    every: Mapping[str, str] = field(default_factory=dict)
    distil: Mapping[str, str] = field(default_factory=dict)
    fine_tune: Mapping[str, str] = field(default_factory=dict)
    soft_label: Mapping[str, str] = field(default_factory=dict)
    soft_labels: Path | None = None

    def commands(self) -> dict[str, list[str]]:
        """The commands by name, in order. A key that is given wins over a default; paths are this command's.

        Raises:
            TskdError: where a teacher's run or a config is missing, a key is given that is one of these paths, or
                weights that do not belong to the teachers.
        """
        teachers = [read_teacher(folder, self._dataset_file, self.num_labelled) for folder in self.teachers]
        self._refuse_weights()
        commands: dict[str, list[str]] = {}
        for number, teacher in enumerate(teachers, start=1):
            commands |= self._answers(teacher, f" {number}" if len(teachers) > 1 else "", self._labels[number - 1])
        learn = {**self._places, "transfer_files": [str(file) for file in self._files]}
        keys = {**self._defaults, **self._mixture(teachers)}
        if len(teachers) == 1:
            learn |= {"soft_labels": self._labels[0], "teacher_model": teachers[0].model}
        else:
            learn |= {"soft_labels": [str(folder) for folder in self._labels]}
        tuned = self._run("tskd")
        if self.joint:
            start, configs = self._run("supervised"), [*self.overlays, "averaged"]
            keys |= self._embedding(teachers) | {"init_weights": start["model_dir"] / "model.pt"}
            first = {**self._defaults, **self.every, **self.fine_tune}
            commands["training on the labels"] = _command(STUDENT, configs, first, {**self._places, **start})
            configs = ["distill", *self.overlays, "averaged", "joint"]
            keys = {**keys, **self.every, **self.distil}
            commands["joint training"] = _command(STUDENT, configs, keys, {**learn, **tuned})
            return commands
        distilled = self._run("distilled")
        keys |= self._embedding(teachers) | {**self.every, **self.distil}
        commands["distillation"] = _command(STUDENT, ["distill", *self.overlays], keys, {**learn, **distilled})
        second = {**self._places, "init_weights": distilled["model_dir"] / "model.pt", **tuned}
        keys = {**self._defaults, **self.every, **self.fine_tune}
        commands["fine-tuning"] = _command(STUDENT, self.overlays, keys, second)
        return commands

    def _answers(self, teacher: Teacher, name: str, labels: Path) -> dict[str, list[str]]:
        """The writing of one teacher's soft labels, after the making of its bundle where it is a student's run."""
        bundle = self._output / "teachers" / f"{teacher.folder.name}{name.replace(' ', '_')}_segmentation"
        commands = {}
        if ship := teacher.ship_command(bundle, self._dataset_file):
            commands[f"bundle of teacher{name}"] = [sys.executable, "-m", *ship]
        configs = ["soft_labels"] if teacher.kind == SAM else ["soft_labels", "teacher_bundle"]
        own = teacher.soft_label_keys(bundle)
        paths = {
            **self._places, "soft_labels": labels, "dataset_files": [str(file) for file in self._files],
            "output_dir": self._output if not name else self._output / f"teachers/{name.strip()}",
            **({"model_dir": teacher.model.parent} if teacher.kind == SAM else {}),
            **({"teacher_bundle": own.pop("teacher_bundle")} if teacher.kind != SAM else {}),
        }  # fmt: skip
        keys = {**self._defaults, **own, **self.soft_label}
        if "image_size" not in keys:
            raise TskdError(
                f"{teacher.folder}: expected an image_size in its configs/inference.json, found none. Give it: "
                "--soft-label-set image_size=N"
            )
        commands[f"soft labels{name}"] = _command(TEACHER, configs, keys, paths)
        return commands

    def _mixture(self, teachers: Sequence[Teacher]) -> dict[str, Any]:
        """The weights of several teachers."""
        return {"teacher_weights": list(self.weights or [1.0] * len(teachers))} if len(teachers) > 1 else {}

    def _embedding(self, teachers: Sequence[Teacher]) -> dict[str, Any]:
        """Without an embedding, which only a foundation model writes, there is nothing to compare with."""
        if teachers[0].kind == SAM and not self.joint:
            return {}
        return {"loss#terms#embedding#weight": 0.0}

    def _refuse_weights(self) -> None:
        if self.weights is not None and (
            len(self.weights) != len(self.teachers) or not all(weight > 0 for weight in self.weights)
        ):
            raise TskdError(
                f"--teacher-weight: expected a number above 0 for each of the {len(self.teachers)} teachers, found "
                f"{list(self.weights)}"
            )

    def _run(self, name: str) -> dict[str, Path]:
        return {"output_dir": self._output / name, "model_dir": self._output / name / "models"}

    @property
    def _defaults(self) -> dict[str, Any]:
        data = read(self._dataset_file)
        budget = {} if self.num_labelled is None else {"num_labelled": self.num_labelled}
        return {"num_classes": len(data["labels"]), "in_channels": data["channels"], **budget}

    @property
    def _places(self) -> dict[str, Path]:
        return {"dataset_dir": self._dataset_file.parent}

    @property
    def _output(self) -> Path:
        return self.output.resolve()

    @property
    def _labels(self) -> list[Path]:
        """Folder of each teacher's soft labels."""
        folder = self._output / "soft_labels" if self.soft_labels is None else self.soft_labels.resolve()
        several = len(self.teachers) > 1
        return [folder / str(number) if several else folder for number in range(1, len(self.teachers) + 1)]

    @property
    def _dataset_file(self) -> Path:
        return self.dataset_dir.resolve() / "dataset.json"

    @property
    def _files(self) -> list[Path]:
        return [self._dataset_file, *(file.resolve() for file in self.transfer_files)]


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
        The student's weights; after a joint training of the better one on validation, with or without soft labels.

    Raises:
        TskdError: as `Distillation.commands`, or naming the command that failed.
    """
    supervised, result = request.output / "supervised", request.output / "tskd"
    best = request.every.get("keep") == "best"
    for name, command in request.commands().items():
        print(f"# {name}\n{shlex.join(['python', *command[1:]])}", flush=True)
        if dry_run:
            continue
        if warm.start(command[2:], None, os.environ).wait() != 0:
            raise TskdError(
                f"{name} failed, see above. Once that is mended, the same command goes on from the last epoch that was "
                "finished; --set resume=never starts anew."
            )
        if name == "training on the labels" and (line := expectation(request.teachers, supervised, best)):
            print(f"# {line}", flush=True)
    if request.joint and not dry_run:
        result, line = better(supervised, result, best)
        print(f"# {line}", flush=True)
    return result / "models" / "model.pt"
