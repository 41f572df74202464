"""A study as a graph: every step with its command, its folder and the steps it needs.

A study is data sets x folds x budgets x methods x seeds. What several methods need (the prepared data, a teacher, its
soft labels, synthetic images, a pretrained student) is one step, which they share.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.workflow.commands import (
    BUNDLES,
    MODEL,
    STUDENT,
    TEACHER,
    defines_network,
    fill,
    has_key,
    merged_config,
    options,
    shared_overrides,
)  # fmt: skip
from tskd.workflow.data_steps import DataSteps
from tskd.workflow.rounds import in_rounds
from tskd.workflow.steps import Cell, Step
from tskd.workflow.teachers import SAM, STUDENT_RUN, read_teacher

KIN = ("sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam_vit_b", "mobile_sam", "lite_medsam")
TRAINED = frozenset({"train", "run", "method"})  # one of them is a key of a teacher that has seen labels


class Study(DataSteps):
    """The steps of an experiment file.

    Args:
        config: content of the file, as `check_study` has accepted it (workflow/study.schema.json).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(in_rounds(config))

    @cached_property
    def steps(self) -> dict[str, Step]:
        """Output -> step, for every step once, each after those it needs; what is given has none."""
        steps: dict[str, Step] = {}

        def visit(step: Step) -> None:
            if step.output not in steps and not step.given:
                for needed in step.needs:
                    visit(needed)
                steps[step.output] = step

        for dataset in self.config["datasets"]:
            visit(self.report(dataset))
        return steps

    def shell(self, output: str) -> str:
        """Return a step as the options of `tskd.workflow.step`, but for its inputs."""
        step = self.steps[output]
        files = ["--path", step.path, "--output", output, *(["--folder", step.folder] if step.folder else [])]
        gpu = ["--gpu"] if step.configs else []
        return shlex.join(["--name", self.step_name(step), *files, *gpu, "--", *step.command])

    def step_name(self, step: Step) -> str:
        """Return what a step is and where in the study it stands."""
        return f"{step.title} ({step.path.removeprefix(self.output + '/')})"

    # --- teachers ----------------------------------------------------------------------------------------------------

    def teacher(self, cell: Cell, name: str) -> Step:
        """Fine-tune the foundation model; for a student as the teacher, make its bundle."""
        settings, folder = self.config["teachers"][name], self._step_folder(cell, "teachers", name, cell.arm)
        if "method" in settings:
            return self._student_as_teacher(cell, name, self.model(cell, settings["method"]))
        if given := settings.get("run"):
            run = Step("teacher", given, f"{given}/models/model.pt", (), folder=given)
            return run if self._kind(name) != STUDENT_RUN else self._student_as_teacher(cell, name, run)
        run_keys = {**_labels(cell), "seed": cell.seed, "model_dir": f"{folder}/models", "output_dir": folder}
        needs = [self.prepare(cell), *self.weights(name)]
        return self._run("teacher", TEACHER, folder, needs, cell, settings["train"], run_keys, settings)

    def _student_as_teacher(self, cell: Cell, name: str, student: Step) -> Step:
        """Ship a student's run; as a teacher it needs no evaluation."""
        folder, data = f"{self._step_folder(cell, 'teachers', name, cell.arm)}/student_segmentation", self.prepare(cell)
        files = ("--run", str(student.folder), "--output", folder, "--dataset-file", data.output)
        command = ("tskd.cli", "ship", *files, "--force")
        return Step("bundle", folder, f"{folder}/models/model.pt", command, (data, student), folder=folder)

    def _kind(self, teacher: str) -> str:
        """Return what answers: a foundation model, or the bundle of a network of any kind."""
        settings = self.config["teachers"][teacher]
        if "method" in settings:
            return STUDENT_RUN
        return read_teacher(Path(settings["run"])).kind if "run" in settings else SAM

    def soft_labels(self, cell: Cell, name: str, source: str, files: Sequence[str] = ()) -> Step:
        """Write a teacher's answers on the "real" or all "synthetic" images, and on those of more dataset.json files.

        An untrained teacher answers once for all cells.
        """
        settings, trained = self.config["teachers"][name], self._trained(name)
        images = self.prepare(cell) if source == "real" else self.synthesise(cell)
        part = source if source == "real" else f"synthetic{self._generator_part(cell)}"
        folder = self._step_folder(cell, f"soft_labels/{part}", name, cell.arm if trained else "untrained")
        run_keys: dict[str, Any] = {"dataset_files": [images.output, *files], "soft_labels": folder}
        run_keys |= {"in_channels": self._channels(cell), "output_dir": f"{folder}/run"}
        needs = list(dict.fromkeys([self.prepare(cell), images]))
        train = settings.get("train", {})
        mirrored = {key: value for key, value in train.get("overrides", {}).items() if key.startswith("augmentation")}
        configs, overrides = ["soft_labels"], {**_model(TEACHER, train)["overrides"], **mirrored}
        if trained:
            needs.append(self.teacher(cell, name))
            run_keys |= {**_labels(cell), "seed": cell.seed}
        else:
            needs += self.weights(name)
        if self._kind(name) != SAM:
            configs.append("teacher_bundle")
            run_keys |= {"teacher_bundle": needs[-1].folder}
            overrides = {"image_size": size} if (size := self._teacher_size(cell, name)) else {}
        elif trained:
            run_keys |= {"model_dir": f"{needs[-1].folder}/models"}
            if "run" in settings:
                known = read_teacher(Path(settings["run"])).settings
                network = [key for key in known if key.startswith("network_def#")]
                overrides = {key: known[key] for key in ("vfm", "image_size", *network)}
                if "mirrored" in known:  # whatever the data set's preset does
                    overrides["tta"] = {"flips": known["mirrored"]} if known["mirrored"] else None
        stage = {"configs": configs, **settings.get("soft_labels", {})}
        stage["overrides"] = {**overrides, **stage.get("overrides", {})}
        return self._run("soft_labels", TEACHER, folder, needs, cell, stage, run_keys, settings)

    def _teacher_size(self, cell: Cell, name: str) -> int | None:
        """Side of the images that a bundle answers for, None where it does not say."""
        settings = self.config["teachers"][name]
        if "run" in settings:
            return read_teacher(Path(settings["run"])).settings.get("image_size")
        stage = self._model(settings["method"])
        known = merged_config(STUDENT, ("train", *stage["configs"]))
        return {**known, **shared_overrides(self.config, STUDENT, cell.dataset), **stage["overrides"]}["image_size"]

    def _embedding_channels(self, cell: Cell, name: str) -> int | None:
        """Channels of a foundation model's embedding, None for SAM and its kin, which have the config's 256."""
        settings = self.config["teachers"][name]
        known = shared_overrides(self.config, TEACHER, cell.dataset) | settings.get("overrides", {})
        known |= settings.get("train", {}).get("overrides", {})
        if "run" in settings:
            known = read_teacher(Path(settings["run"])).settings
        vfm = str(fill(self.config, known.get("vfm", "")))
        if vfm in KIN or not vfm:
            return None
        from tskd.networks.encoders.build_encoder import embedding_channels  # needs torch and transformers

        return embedding_channels(vfm)

    # --- students ----------------------------------------------------------------------------------------------------

    def pretrain(self, cell: Cell, name: str) -> Step:
        """Pretrain a student before it has seen a label: by a teacher's distillation, or in a rival's way."""
        settings = self.config["pretraining"][name]
        teachers, sizes = teachers_of(settings), settings.get("transfer", {})
        rule, trained = ("distil" if teachers else "rival"), any(self._trained(teacher) for teacher in teachers)
        budgeted = trained or sizes.get("real") == "labelled" or "start" in settings
        budgeted |= "synthetic" in sizes and self._generator_part(cell) != ""
        budgeted |= self._sees_labels(cell, settings)
        folder = self._step_folder(cell, rule, name, cell.arm if budgeted else f"seed-{cell.seed}")
        run_keys: dict[str, Any] = _labels(cell) if budgeted else {}
        run_keys |= {"seed": cell.seed, "in_channels": self._channels(cell)}
        needs, lists, files = [self.prepare(cell)], self.transfer(cell, sizes), sizes.get("files", [])
        if lists:
            run_keys["transfer_files"] = [*(step.output for step in lists.values()), *files]
        if "start" in settings:
            needs.append(self._start(cell, name))
            run_keys["init_weights"] = f"{needs[-1].folder}/models/model.pt"
        answers = [[self.soft_labels(cell, t, s, files if s == "real" else ()) for s in lists] for t in teachers]
        needs += [step for each in answers for step in each]
        if len(teachers) > 1:
            run_keys["soft_labels"] = [[str(step.folder) for step in each] for each in answers]
            run_keys["teacher_weights"] = settings.get("teacher_weights", [1.0] * len(teachers))
        elif teachers:
            run_keys["soft_labels"] = [str(step.folder) for step in answers[0]]
        if teachers and self._kind(teachers[0]) != SAM:
            run_keys["loss#terms#embedding#weight"] = 0.0  # which only a foundation model writes
        elif teachers and (channels := self._embedding_channels(cell, teachers[0])) is not None:
            run_keys["embedding_channels"] = channels
        if len(teachers) == 1 and trained:
            needs.append(self.teacher(cell, teachers[0]))
            run_keys["teacher_model"] = f"{needs[-1].folder}/models/model.pt"
        run_keys |= {"output_dir": folder, "model_dir": f"{folder}/models"}
        needs = list(dict.fromkeys([*needs, *lists.values()]))
        return self._run(rule, STUDENT, folder, needs, cell, settings, run_keys)

    def _sees_labels(self, cell: Cell, settings: Mapping[str, Any]) -> bool:
        """Return whether a pretraining's loss reads labels, or its batches tell labelled images from others."""
        configs = ("train", *settings.get("configs", []))
        try:
            known = merged_config(STUDENT, configs)
        except TskdError:  # a config that does not exist, which the check of all configs says
            return True
        shared = shared_overrides(self.config, STUDENT, cell.dataset)
        stage = {key: value for key, value in shared.items() if has_key(STUDENT, configs, key)}
        stage |= settings.get("overrides", {})
        if (known | stage).get("labelled_weight", 0) != 0 or (known | stage).get("batch_ratio") is not None:
            return True
        return bool(known["train"]["dataset"]["data"] == merged_config(STUDENT, ("train",))["train"]["dataset"]["data"])

    def _start(self, cell: Cell, pretraining: str) -> Step:
        """Return the training on the labels that a joint training starts from."""
        settings = self.config["pretraining"][pretraining]
        if isinstance(start := settings["start"], str):
            return self.finetune(cell, start)
        return self._on_labels(cell, f"{settings.get('round_of', pretraining)}_start", {"finetune": start})

    def finetune(self, cell: Cell, method: str) -> Step:
        """Train the student on the labels, from its pretraining if the method has one."""
        return self._on_labels(cell, method, self.config["methods"][method])

    def _on_labels(self, cell: Cell, name: str, settings: Mapping[str, Any]) -> Step:
        folder = self._step_folder(cell, "finetune", name, cell.arm)
        run_keys: dict[str, Any] = {**_labels(cell), "seed": cell.seed, "in_channels": self._channels(cell)}
        run_keys |= {"output_dir": folder, "model_dir": f"{folder}/models"}
        needs = [self.prepare(cell)]
        if "pretrain" in settings:
            needs.append(self.pretrain(cell, settings["pretrain"]))
            run_keys["init_weights"] = f"{needs[-1].folder}/models/model.pt"
        return self._run("finetune", STUDENT, folder, needs, cell, settings["finetune"], run_keys)

    # --- results -----------------------------------------------------------------------------------------------------

    def _model(self, method: str) -> dict[str, Any]:
        """Return what of a method's training its model goes on with."""
        settings = self.config["methods"][method]
        if "teacher" in settings:
            return _model(TEACHER, self.config["teachers"][settings["teacher"]].get("train", {}))
        start = self.config.get("pretraining", {}).get(settings.get("pretrain"), {})
        return _model(STUDENT, settings.get("finetune") or start)

    def model(self, cell: Cell, method: str) -> Step:
        """Return the step whose model the method stands for: a teacher, a pretrained or a fine-tuned student."""
        settings = self.config["methods"][method]
        if "teacher" in settings:
            return self.teacher(cell, settings["teacher"])
        return self.finetune(cell, method) if "finetune" in settings else self.pretrain(cell, settings["pretrain"])

    def evaluate(self, cell: Cell, method: str) -> Step:
        """Score the model on the test list, into the folder of its training."""
        model, teacher = self.model(cell, method), self.config["methods"][method].get("teacher")
        run_keys = {**_labels(cell), "budget": cell.budget, "seed": cell.seed, "method": method}
        run_keys |= {"output_dir": model.folder, "model_dir": f"{model.folder}/models"}
        run_keys |= {} if teacher else {"in_channels": self._channels(cell)}
        shared = self.config["teachers"][teacher] if teacher else {}
        path, needs = f"{model.folder}/evaluate", [self.prepare(cell), model]
        bundle = TEACHER if teacher else STUDENT
        stage = self._model(method)
        stage["configs"] = [*stage["configs"], "evaluate"]
        step = self._run("evaluate", bundle, path, needs, cell, stage, run_keys, shared)
        return replace(step, output=f"{model.folder}/metrics.csv", folder=None)

    def profile(self, dataset: str, method: str) -> Step:
        """Measure parameters, multiply-adds and speed of a method's network."""
        cell = next(self.cells(dataset))
        model, teacher = self.model(cell, method), self.config["methods"][method].get("teacher")
        bundle, keys = (TEACHER, "vfm") if teacher else (STUDENT, "in_channels")
        known = {**self.config["datasets"][dataset], **shared_overrides(self.config, bundle, dataset)}
        network = self._model(method)
        known |= {**(self.config["teachers"][teacher].get("overrides", {}) if teacher else {}), **network["overrides"]}
        name = ":".join([str(BUNDLES / bundle), *network["configs"][-1:]])
        values = {key: known[key] for key in ("image_size", "num_classes", keys) if key in known}
        if nested := [f"{key}={value}" for key, value in known.items() if key.startswith("network_def#")]:
            values["set"] = nested
        command = ("tskd.cli", "profile", name, *options(values))
        path = f"{model.folder}/profile"
        return Step("profile", path, f"{path}.json", (*command, "--output", f"{path}.json"), (model,))

    def report(self, dataset: str) -> Step:
        """Write the report on one data set."""
        settings, folder = self.config.get("report", {}), f"{self.output}/{dataset}/report"
        methods, cells = self.methods(dataset), list(self.cells(dataset))
        runs = [self.evaluate(cell, method) for method in methods for cell in cells]
        needs = runs + [self.profile(dataset, method) for method in methods if settings.get("profile")]
        folders = [run.path.removesuffix("/evaluate") for run in runs]
        values = {"output": folder}
        if settings.get("reference") in methods:
            values["reference"] = settings["reference"]
        if len(self.folds) == 1:
            values["dataset-file"] = f"{self.prepare(cells[0]).folder}/dataset.json"
            drawn = {str(step.folder) for step in _ancestors(runs) if step.rule == "synthesise"}
            if len(drawn) == 1:  # those of several budgets would need a section each
                values["synthetic"] = drawn.pop()
        about = json.dumps({"study": self.config["name"], "methods": {m: self._about(cells[0], m) for m in methods}})
        command = ("tskd.workflow.study_report", about, *folders, *options(values))
        return Step("report", folder, f"{folder}/report.html", command, tuple(needs), folder=folder)

    def _about(self, cell: Cell, method: str) -> dict[str, Any]:
        """Return what a method is in words, and the steps of one training of it."""
        settings = self.config["methods"][method]
        start = self.config.get("pretraining", {}).get(settings.get("pretrain"), {})
        if "teacher" in settings:
            what = f"the teacher: foundation model {settings['teacher']}, fine-tuned on the labels"
        else:
            parts = ["trained on the labels"] if "start" in start else []
            parts += [f"distilled from {' and '.join(teachers_of(start))}"] if "teacher" in start else []
            parts += [f"pretrained ({', '.join(start['configs'])})"] if start and "teacher" not in start else []
            parts += ["trained on the labels"] if "finetune" in settings else []
            what = f"student, {', then '.join(parts)}" + ("" if start else " alone")
        model = self.model(cell, method)
        stages = {step.log: step.title for step in [*_ancestors([model])] if step.configs}
        return {
            "what": what,
            "teacher": "teacher" in settings,
            "stages": [[title, log] for log, title in reversed(stages.items())],
        }

    def _trained(self, teacher: str) -> bool:
        return not TRAINED.isdisjoint(self.config["teachers"][teacher])


def teachers_of(pretraining: Mapping[str, Any]) -> list[str]:
    """Return names of a pretraining's teachers."""
    teacher = pretraining.get("teacher", [])
    return [teacher] if isinstance(teacher, str) else list(teacher)


def _labels(cell: Cell) -> dict[str, Any]:
    """Return the key that limits the labels; none where all of them count."""
    return {} if cell.budget == "all" else {"num_labelled": cell.budget}


def _model(bundle: str, stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training's model goes on with of its stage: overlays that define a network, and keys of MODEL."""
    overlays = [name for name in stage.get("configs", ()) if defines_network(bundle, name)]
    overrides = {key: value for key, value in stage.get("overrides", {}).items() if key.split("#")[0] in MODEL}
    return {"configs": overlays, "overrides": overrides}


def _ancestors(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield from _ancestors(step.needs)
