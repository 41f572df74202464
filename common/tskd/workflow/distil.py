"""`tskd distil`: soft labels of teachers that are there already, and the two trainings of a student, as a study."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tskd.data import read
from tskd.data.budget import Budget, groups_of
from tskd.errors import TskdError
from tskd.files import sha256
from tskd.networks.weight_store import get_weights
from tskd.options import unknown_key
from tskd.workflow import warm
from tskd.workflow.commands import STUDENT, config_files, merged_config, names_network
from tskd.workflow.follow import Follower
from tskd.workflow.gain import better, better_round, expectation, unequal
from tskd.workflow.rounds import round_name
from tskd.workflow.screen import Screen
from tskd.workflow.steps import Cell, Step
from tskd.workflow.study import Study
from tskd.workflow.teachers import Teacher, read_teacher
from tskd.workflow.train import Runner, failure, follow_command, only_run

PATHS = frozenset({  # keys that say where things are: the command sets them
    "dataset_dir", "dataset_files", "soft_labels", "model_dir", "output_dir", "teacher_model", "transfer_files",
    "init_weights", "teacher_bundle",
})  # fmt: skip
LABELS = "training on the labels"
LONGER = "supervised_longer"  # the training that goes on with the labels alone, and its folder
LENGTH = ("max_epochs", "iterations_per_epoch", "batch_size", "accumulation_steps", "val_interval")
DEFAULT, ENCODER = "lite_unet", "efficientnet_lite0"  # overlay of the student where none is named, and its weights


@dataclass(frozen=True)
class Distillation:
    """What `tskd distil` is asked for.

    Args:
        dataset_dir: folder with dataset.json.
        teachers: `output_dir` of a teacher's or student's training, or a MONAI bundle; of several the probabilities are
            averaged.
        output: folder to write: soft_labels, supervised (in the paper's order distilled) and tskd.
        num_labelled: the labelled budget: a number of images, "3 patients", or None for all of the training list.
        transfer_files: more dataset.json files to learn from, such as that of synthetic images.
        overlays: names of overlays of train.json for both trainings, such as segresnet; the student is LiteUNet where
            none of them names a network (unetr: that of train.json).
        weights: of several teachers, above 0; None for all alike.
        rounds: trainings with soft labels; the student of each is the teacher of the next.
        baseline: whether the labels alone are trained for as long as both trainings, too, for a fair comparison.
        order: `semi` trains on the labels first, then on labels and on pseudo-labels of teacher and student together
            (`semi.json`); `joint` on labels and soft labels (`joint.json`); `paper` on soft labels first.
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
    rounds: int = 1
    baseline: bool = False
    order: Literal["semi", "joint", "paper"] = "semi"
    every: Mapping[str, str] = field(default_factory=dict)
    distil: Mapping[str, str] = field(default_factory=dict)
    fine_tune: Mapping[str, str] = field(default_factory=dict)
    soft_label: Mapping[str, str] = field(default_factory=dict)
    soft_labels: Path | None = None

    @property
    def joint(self) -> bool:
        """Whether labels and the teacher's answers are learned from together."""
        return self.order != "paper"

    @property
    def pseudo_ratio(self) -> str | None:
        """The key of the joint training, "agreement" where nothing is given; None without pseudo-labels."""
        given = {**self.every, **self.distil}
        return str(given.get("pseudo_ratio", "agreement")) if self.order == "semi" else None

    @cached_property
    def steps(self) -> dict[str, Step]:
        """The steps by name, in order. A key that is given wins over a default; paths are this command's.

        Raises:
            TskdError: where a teacher's run or a config is missing, a key is given that is one of these paths or that a
                config does not have, or weights that do not belong to the teachers.
        """
        self._refuse_weights()
        if self.rounds < 1 or (self.rounds > 1 and not self.joint):
            raise TskdError(
                f"--rounds: expected 1 or more, and 1 with --order paper, found {self.rounds}. In the paper's order "
                "give the student of one call as --teacher of the next"
            )
        if self.baseline and not self.joint:
            raise TskdError(
                "--baseline: expected --order semi or joint, which start from the student of the labels, found paper. "
                "Leave it out, and train on the labels by themselves: tskd run with train.json"
            )
        study = _Folders(self.study, self.output.resolve(), self.soft_labels, self._names)
        cell = next(study.cells("data"))
        learned, several = study.pretrain(cell, "tskd"), len(self.teachers) > 1
        steps: dict[str, Step] = {}
        for number, name in enumerate(self._names, start=1):
            label, teacher = f" {number}" if several else "", study.teacher(cell, name)
            if not teacher.given and not self._is_made(teacher):
                steps[f"bundle of teacher{label}"] = teacher
            steps[f"soft labels{label}"] = study.soft_labels(cell, name, "real", study.files)
        if self.joint:
            steps |= {LABELS: study.finetune(cell, "supervised")}
            for one in self._rounds:
                student, bundle = study.pretrain(cell, one), study.teacher(cell, one)
                steps[f"joint training of {one}"] = student
                if not self._is_made(bundle):
                    steps[f"bundle of {one}"] = bundle
                steps[f"soft labels of {one}"] = study.soft_labels(cell, one, "real", study.files)
            steps["joint training"] = learned
            if self.baseline:
                steps["longer training on the labels"] = replace(study.pretrain(cell, LONGER), rule="finetune")
        else:
            steps |= {"distillation": learned, "fine-tuning": study.finetune(cell, "tskd")}
        self._refuse_keys(steps)
        # what a run finds in its folder it goes on with or refuses itself: nothing is cleared
        return {name: replace(step, folder=None) for name, step in steps.items()}

    @cached_property
    def study(self) -> dict[str, Any]:
        """A study of one data set that is prepared, teachers that are trained, and one student."""
        content, patients = read(self._dataset_file), groups_of(self.num_labelled)
        volumes = any(
            entry["image"].endswith((".nii", ".nii.gz")) for entry in [*content["validation"], *content["test"]]
        )
        budget = "all" if self.num_labelled is None else self.num_labelled
        dataset = {
            "dataset_dir": str(self._dataset_file.parent), "num_classes": len(content["labels"]),
            "in_channels": content["channels"], "images_2d": not volumes and "images_2d" not in self.overlays,
            **({"budgets": [budget]} if patients is None else {"num_labelled_groups": [patients]}),
        }  # fmt: skip
        for teacher in self._teachers:
            teacher.warn_of_different_data(self._dataset_file, self.num_labelled)
        answers = [self._soft_label_stage(teacher) for teacher in self._teachers]
        learn: dict[str, Any] = {
            "teacher": self._names, "configs": ["distill", *self._overlays],
            "transfer": {"real": True, "files": [str(file.resolve()) for file in self.transfer_files]},
            "overrides": {**self.every, **self.distil},
        }  # fmt: skip
        if self.weights is not None:
            learn["teacher_weights"] = list(self.weights)
        if self.rounds > 1:
            learn["rounds"] = self.rounds
        labels: dict[str, Any] = {"configs": self._overlays, "overrides": {**self.every, **self.fine_tune}}
        pretraining = {"tskd": learn}
        if self.joint:
            stages = ["averaged", "joint", "semi"] if self.order == "semi" else ["averaged", "joint"]
            learn |= {"start": "supervised", "configs": [*learn["configs"], *stages]}
            labels["configs"] = [*self._overlays, "averaged"]
            methods = {"supervised": {"finetune": labels}, "tskd": {"pretrain": "tskd"}}
            if self.baseline:
                length = {**merged_config(STUDENT, ("train", *learn["configs"])), **learn["overrides"]}
                overrides = {**labels["overrides"], **{key: length[key] for key in LENGTH}}
                pretraining[LONGER] = {**labels, "start": "supervised", "overrides": overrides}
                methods[LONGER] = {"pretrain": LONGER}
        else:
            methods = {"tskd": {"pretrain": "tskd", "finetune": labels}}
        return {
            "name": "distil", "output": str(self.output.resolve()), "seeds": [int(self.every.get("seed", 0))],
            "datasets": {"data": dataset}, "teachers": dict(zip(self._names, answers, strict=True)),
            "pretraining": pretraining, "methods": methods,
        }  # fmt: skip

    def _soft_label_stage(self, teacher: Teacher) -> dict[str, Any]:
        if "image_size" not in {**teacher.settings, **self.soft_label}:
            raise TskdError(
                f"{teacher.folder}: expected an image_size in its configs/inference.json, found none. Give it: "
                "--soft-label-set image_size=N"
            )
        return {"run": str(teacher.folder), "soft_labels": {"overrides": dict(self.soft_label)}}

    @cached_property
    def _teachers(self) -> list[Teacher]:
        return [read_teacher(folder) for folder in self.teachers]

    @property
    def _names(self) -> list[str]:
        """A name of each teacher, which its folders get."""
        several = len(self.teachers) > 1
        return [
            f"{teacher.folder.name}_{number}" if several else teacher.folder.name
            for number, teacher in enumerate(self._teachers, start=1)
        ]

    @property
    def _overlays(self) -> list[str]:
        """Overlays of both trainings; one that changes a part of the network comes after the one that names it."""
        named = "network_def" in self.every or any(names_network(STUDENT, overlay) for overlay in self.overlays)
        return [*([] if named else [DEFAULT]), *self.overlays]

    @property
    def _rounds(self) -> list[str]:
        """Names of the rounds before the last, and of their runs."""
        return [round_name("tskd", number) for number in range(1, self.rounds)]

    @property
    def students(self) -> list[Path]:
        """Runs of the distilled students, round by round."""
        return [self.output / name for name in [*self._rounds, "tskd"]]

    @property
    def validation_patients(self) -> int:
        """How many patients the validation list has."""
        return len({entry["group"] for entry in read(self._dataset_file)["validation"]})

    @property
    def _dataset_file(self) -> Path:
        return self.dataset_dir.resolve() / "dataset.json"

    def _is_made(self, bundle: Step) -> bool:
        """Whether a student's bundle is there from an earlier call.

        Raises:
            TskdError: another run's bundle is there.
        """
        made, source = Path(bundle.output), Path(bundle.needs[-1].output)
        if made.is_file() and sha256(made) == sha256(source):
            return True
        if Path(bundle.path).exists():
            raise TskdError(
                f"{bundle.path}: expected the bundle of {source.parents[1]}, found another one's. The teacher was "
                "trained again: give another --output, or remove the folder"
            )
        return False

    def _refuse_weights(self) -> None:
        if self.weights is not None and (
            len(self.weights) != len(self.teachers) or not all(weight > 0 for weight in self.weights)
        ):
            raise TskdError(
                f"--teacher-weight: expected a number above 0 for each of the {len(self.teachers)} teachers, found "
                f"{list(self.weights)}"
            )

    def _refuse_keys(self, steps: Mapping[str, Step]) -> None:
        if taken := sorted({*self.every, *self.distil, *self.fine_tune, *self.soft_label} & PATHS):
            raise TskdError(
                f"expected keys that tskd distil does not set itself, found {', '.join(taken)}. Say where things are "
                "with --dataset-dir, --teacher, --transfer-file, --soft-labels and --output"
            )
        problems = []
        for name, step in steps.items():
            if step.configs is None:
                continue
            if missing := [file for file in config_files(*step.configs) if not Path(file).is_file()]:
                raise TskdError(f"expected config files, not found: {', '.join(missing)}")
            merged = merged_config(*step.configs)
            problems += [f"{name}: {key}: {why}" for key in step.overrides if (why := unknown_key(key, merged))]
        if problems:
            raise TskdError("unknown keys\n" + "\n".join(f"  {problem}" for problem in problems))


class _Folders(Study):
    """A study of one training, whose runs lie side by side in the output folder."""

    def __init__(self, config: Mapping[str, Any], output: Path, soft_labels: Path | None, teachers: list[str]) -> None:
        super().__init__(config)
        labels = output / "soft_labels" if soft_labels is None else soft_labels.resolve()
        self._soft_labels = {
            name: labels / str(number) if len(teachers) > 1 else labels for number, name in enumerate(teachers, start=1)
        }
        self.files: list[str] = config["pretraining"]["tskd"]["transfer"]["files"]

    def _step_folder(self, cell: Cell, kind: str, name: str, arm: str) -> str:
        if kind.startswith("soft_labels"):
            return str(self._soft_labels.get(name, f"{self.output}/soft_labels_{name}"))
        if kind == "teachers":
            return f"{self.output}/teachers/{name}"
        if kind == "distil" and "supervised" not in self.config["methods"]:
            return f"{self.output}/distilled"
        return f"{self.output}/{name}"


def _get_encoder(steps: Iterable[Step]) -> None:
    """Download the weights that the default student's encoder starts with, before the first step takes its time.

    Raises:
        TskdError: they are neither here nor to be downloaded.
    """
    given = {"--encoder_weights", "--init_weights"}
    if any(step.configs and DEFAULT in step.configs[1] and given.isdisjoint(step.command) for step in steps):
        try:
            get_weights(ENCODER)
        except TskdError as error:
            raise TskdError(
                f"{error}. Or take a student that starts from random weights: --overlay flexible_unet (or unetr, "
                "segresnet, ...), or --set encoder_weights=random"
            ) from error


def distil(request: Distillation, dry_run: bool = False) -> Path:
    """Run the steps, and show how far they are; each goes on from the last epoch that was finished.

    That of the soft labels keeps those that are there already, and refuses a folder of another teacher or another
    preprocessing. `OUTPUT/distil.log` has what they print.

    Args:
        request: what is asked for.
        dry_run: print the commands only.

    Returns:
        The student's weights; after a joint training of the best one on validation, with or without soft labels.

    Raises:
        TskdError: as `Distillation.steps`; the weights that the student starts with cannot be had; or naming the step
            that failed, with its cause and its log.
    """
    steps, result = request.steps, request.output / "tskd"
    if dry_run:
        for name, step in steps.items():
            print(f"# {name}\n{shlex.join(['python', '-m', *step.command])}", flush=True)
        return result / "models" / "model.pt"
    _get_encoder(steps.values())
    file = request.output / "distil.log"
    with (
        only_run(request.output),
        tempfile.TemporaryDirectory(prefix="tskd-") as folder,
        warm.server(Path(folder), file) as environment,
        file.open("a", encoding="utf-8") as log,
    ):
        result = _run(request, steps, environment, Screen(log))
    return result / "models" / "model.pt"


def _run(request: Distillation, steps: Mapping[str, Step], environment: Mapping[str, str], screen: Screen) -> Path:
    """Run the steps; returns the run whose student is the result."""
    supervised, result, best = (
        request.output / "supervised",
        request.output / "tskd",
        request.every.get("keep") == "best",
    )
    runner, follower = Runner("the same command"), Follower(list(steps.values()), {}, 1, time.time())
    file = request.output / "distil.log"
    screen.line(f"{len(steps)} steps; log: {file}")
    for name, step in steps.items():
        options = ["--name", step.title, "--path", step.path, "--output", step.output, "--gpu"]
        command = [sys.executable, "-m", "tskd.workflow.step", *options, "--", *step.command]
        if follow_command(command, environment, screen.log, screen, follower, runner) != 0:
            raise TskdError(failure(follower, file, runner) + "; --set resume=never starts anew")
        if name == LABELS:
            screen.line(expectation(request.teachers, supervised, best, request.pseudo_ratio))
    if request.joint:
        result, line = better(
            supervised,
            request.students[0],
            best,
            request.output / LONGER if request.baseline else None,
            request.validation_patients,
        )
        screen.line(line)
        for number, run in enumerate(request.students[1:], start=2):
            remark = unequal(supervised, run) if result == supervised and not request.baseline else ""
            result, line = better_round(result, run, number, best, remark)
            screen.line(line)
    return result
