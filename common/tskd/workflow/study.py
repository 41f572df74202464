"""A study as a graph: every step with its command, its folder and the steps it needs.

A study is data sets x folds x budgets x methods x seeds. What several methods need (the prepared data, a teacher, its
soft labels, synthetic images, a pretrained student) is one step, which they share.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from tskd.data.budget import whole_patients
from tskd.workflow.commands import (
    BUNDLES,
    DDPM,
    MODEL,
    STUDENT,
    TEACHER,
    bundle_command,
    defines_network,
    fill,
    has_key,
    options,
    shared_overrides,
)  # fmt: skip
from tskd.workflow.steps import MADE, Cell, Step


class Study:
    """The steps of an experiment file.

    Args:
        config: content of the file, as `check_study` has accepted it (workflow/study.schema.json).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.output = str(config.get("output", f"results/{config['name']}")).rstrip("/")

    @property
    def folds(self) -> list[str]:
        """Names of the folds that are run: "fold-0", ..., or "split" for the data set's own split."""
        folds = self.config.get("folds")
        return [f"fold-{number}" for number in folds.get("run", range(folds["of"]))] if folds else ["split"]

    def methods(self, dataset: str) -> list[str]:
        """Methods that are run on a data set."""
        return [name for name, method in self.config["methods"].items() if dataset in method.get("datasets", [dataset])]

    def budgets(self, dataset: str) -> list[int | str]:
        """Labelled budgets of a data set: numbers of images, "all", and whole patients ("3 patients")."""
        settings = self.config["datasets"][dataset]
        return [*settings.get("budgets", []), *map(whole_patients, settings.get("num_labelled_groups", []))]

    def cells(self, dataset: str) -> Iterator[Cell]:
        """Folds x budgets x seeds of a data set."""
        for fold in self.folds:
            for budget in self.budgets(dataset):
                for seed in self.config["seeds"]:
                    yield Cell(dataset, fold, budget, seed)

    @cached_property
    def steps(self) -> dict[str, Step]:
        """Output -> step, for every step once, each after those it needs; what is given has none."""
        found: dict[str, Step] = {}

        def visit(step: Step) -> None:
            if step.output not in found and not step.given:
                for needed in step.needs:
                    visit(needed)
                found[step.output] = step

        for dataset in self.config["datasets"]:
            visit(self.report(dataset))
        return found

    def shell(self, output: str) -> str:
        """A step as the options of `tskd.workflow.step`, but for its inputs."""
        step = self.steps[output]
        files = ["--path", step.path, "--output", output, *(["--folder", step.folder] if step.folder else [])]
        gpu = ["--gpu"] if step.configs else []
        return shlex.join(["--name", self.step_name(step), *files, *gpu, "--", *step.command])

    def step_name(self, step: Step) -> str:
        """What a step is and where in the study it stands."""
        return f"{step.title} ({step.path.removeprefix(self.output + '/')})"

    # --- data --------------------------------------------------------------------------------------------------------

    def prepare(self, cell: Cell) -> Step:
        """Writes dataset.json: of all that the data set has, or of a few of each list where the study has a `limit`."""
        place = f"{self._at(cell)}/dataset"
        if "limit" not in self.config:
            return self._prepare(cell, place)
        source = self._prepare(cell, f"{place}-all")
        files = (f"{source.folder}/dataset.json", f"limit-{self.config['limit']}", f"{place}/dataset.json")
        return Step("prepare", place, files[-1], ("tskd.workflow.sublist", *files), (source,), folder=place)

    def _prepare(self, cell: Cell, place: str) -> Step:
        settings = self.config["datasets"][cell.dataset]["prepare"]
        values = {
            "output": place,
            **{key: fill(self.config, value) for key, value in settings.get("options", {}).items()},
        }
        if cell.fold != "split":
            values |= {"fold": cell.fold.removeprefix("fold-"), "folds": self.config["folds"]["of"]}
        command = ("tskd.cli", "prepare", settings["preparer"], *options(values))
        return Step("prepare", place, f"{place}/dataset.json", command, folder=place)

    def weights(self, teacher: str) -> list[Step]:
        """Downloads the weights of a teacher's foundation model into the user's cache; none if they are a file."""
        name = self.config["teachers"][teacher].get("fetch")
        if name is None:
            return []
        place, record = f"{self.output}/weights/{name}", f"{self.output}/weights/{name}.json"
        return [Step("weights", place, record, ("tskd.cli", "weights", "get", name, "--record", record))]

    def ddpm(self, cell: Cell) -> Step:
        """Trains the generator of synthetic images."""
        images = self._generator_images(cell)
        place = f"{self._at(cell)}/ddpm{self._generator_part(cell)}"
        own = {"seed": self._draw, "in_channels": self._channels(cell), "dataset_dir": images.folder}
        own |= {"output_dir": place, "model_dir": f"{place}/models"}
        return self._run("ddpm", DDPM, place, [images], cell, self.config["synthesis"].get("train", {}), own)

    def synthesise(self, cell: Cell) -> Step:
        """Writes synthetic images and passes them through the memorisation gate."""
        images, model, settings = self._generator_images(cell), self.ddpm(cell), self.config["synthesis"]
        place = f"{self._at(cell)}/synthetic{self._generator_part(cell)}"
        own = {"model_dir": f"{model.folder}/models", "seed": self._draw, "num_images": settings["num_images"]}
        own |= {"dataset_dir": images.folder, "synthetic_dir": place, "output_dir": f"{place}/run"}
        return self._run(
            "synthesise", DDPM, place, [images, model], cell, settings.get("sample", {}), own, base="inference"
        )

    def _generator_images(self, cell: Cell) -> Step:
        """The step whose dataset.json the generator is trained on: all real images, or the labelled ones only."""
        prepared = self.prepare(cell)
        return self._first(cell, prepared, "labelled", cell.budget_name) if self._generator_part(cell) else prepared

    def _generator_part(self, cell: Cell) -> str:
        """What the names of a generator's folders end with where it depends on the budget."""
        return f"-labelled-{cell.budget_name}" if self.config["synthesis"].get("real") == "labelled" else ""

    def transfer(self, cell: Cell, sizes: Mapping[str, Any]) -> dict[str, Step]:
        """The steps whose dataset.json a student learns from: of real images, of synthetic ones or both."""
        lists = {}
        if real := sizes.get("real"):
            source = self.prepare(cell)
            lists["real"] = source if real is True else self._first(cell, source, "labelled", cell.budget_name)
        if synthetic := sizes.get("synthetic"):
            source = self.synthesise(cell)
            part = f"synthetic{self._generator_part(cell)}"
            lists["synthetic"] = source if synthetic == "all" else self._first(cell, source, part, synthetic)
        return lists

    def _first(self, cell: Cell, source: Step, part: str, count: int | str) -> Step:
        """The list of the first so many images of a step's dataset.json, or of all labelled ones."""
        place = f"{self._at(cell)}/{part}-{count}"
        files = (f"{source.folder}/dataset.json", str(count), f"{place}/dataset.json")
        return Step("transfer", place, files[-1], ("tskd.workflow.sublist", *files), (source,), folder=place)

    # --- teachers ----------------------------------------------------------------------------------------------------

    def teacher(self, cell: Cell, name: str) -> Step:
        """Fine-tuning of the foundation model."""
        place, settings = f"{self._at(cell)}/teachers/{name}/{cell.arm}", self.config["teachers"][name]
        own = {**_labels(cell), "seed": cell.seed, "model_dir": f"{place}/models", "output_dir": place}
        needs = [self.prepare(cell), *self.weights(name)]
        return self._run("teacher", TEACHER, place, needs, cell, settings["train"], own, settings)

    def soft_labels(self, cell: Cell, name: str, source: str) -> Step:
        """A teacher's answers on the "real" or all "synthetic" images; an untrained one answers once for all cells."""
        settings, trained = self.config["teachers"][name], self._trained(name)
        images = self.prepare(cell) if source == "real" else self.synthesise(cell)
        part = source if source == "real" else f"synthetic{self._generator_part(cell)}"
        place = f"{self._at(cell)}/soft_labels/{part}/{name}/{cell.arm if trained else 'untrained'}"
        own: dict[str, Any] = {"dataset_files": [f"{images.folder}/dataset.json"], "soft_labels": place}
        own |= {"in_channels": self._channels(cell), "output_dir": f"{place}/run"}
        needs = list(dict.fromkeys([self.prepare(cell), images]))
        if trained:
            needs.append(self.teacher(cell, name))
            own |= {**_labels(cell), "seed": cell.seed, "model_dir": f"{needs[-1].folder}/models"}
        else:
            needs += self.weights(name)
        stage = {"configs": ["soft_labels"], **settings.get("soft_labels", {})}
        stage["overrides"] = {**_model(TEACHER, settings.get("train", {}))["overrides"], **stage.get("overrides", {})}
        return self._run("soft_labels", TEACHER, place, needs, cell, stage, own, settings)

    # --- students ----------------------------------------------------------------------------------------------------

    def pretrain(self, cell: Cell, name: str) -> Step:
        """A student before it has seen a label: distilled by a teacher, or pretrained in a rival's way."""
        settings = self.config["pretraining"][name]
        teacher, sizes = settings.get("teacher"), settings.get("transfer", {})
        rule, trained = ("distil" if teacher else "rival"), teacher is not None and self._trained(teacher)
        budgeted = trained or sizes.get("real") == "labelled"
        budgeted |= "synthetic" in sizes and self._generator_part(cell) != ""
        budgeted |= "batch_ratio" in settings.get("overrides", {})  # which tells labelled images from others
        place = f"{self._at(cell)}/{rule}/{name}/{cell.arm if budgeted else f'seed-{cell.seed}'}"
        own: dict[str, Any] = _labels(cell) if budgeted else {}
        own |= {"seed": cell.seed, "in_channels": self._channels(cell)}
        needs = [self.prepare(cell)]
        lists = self.transfer(cell, sizes)
        if lists:
            own["transfer_files"] = [f"{step.folder}/dataset.json" for step in lists.values()]
        if teacher:
            answers = [self.soft_labels(cell, teacher, source) for source in lists]
            own["soft_labels"] = [str(step.folder) for step in answers]
            needs += answers
        if teacher and trained:
            needs.append(self.teacher(cell, teacher))
            own["teacher_model"] = f"{needs[-1].folder}/models/model.pt"
        own |= {"output_dir": place, "model_dir": f"{place}/models"}
        needs = list(dict.fromkeys([*needs, *lists.values()]))
        return self._run(rule, STUDENT, place, needs, cell, settings, own)

    def finetune(self, cell: Cell, method: str) -> Step:
        """Trains the student on the labels, from its pretraining if the method has one."""
        place, settings = f"{self._at(cell)}/finetune/{method}/{cell.arm}", self.config["methods"][method]
        own: dict[str, Any] = {**_labels(cell), "seed": cell.seed, "in_channels": self._channels(cell)}
        own |= {"output_dir": place, "model_dir": f"{place}/models"}
        needs = [self.prepare(cell)]
        if "pretrain" in settings:
            needs.append(self.pretrain(cell, settings["pretrain"]))
            own["init_weights"] = f"{needs[-1].folder}/models/model.pt"
        return self._run("finetune", STUDENT, place, needs, cell, settings["finetune"], own)

    # --- results -----------------------------------------------------------------------------------------------------

    def _model(self, method: str) -> dict[str, Any]:
        """What of a method's training its model goes on with."""
        settings = self.config["methods"][method]
        if "teacher" in settings:
            return _model(TEACHER, self.config["teachers"][settings["teacher"]].get("train", {}))
        start = self.config.get("pretraining", {}).get(settings.get("pretrain"), {})
        return _model(STUDENT, settings.get("finetune") or start)

    def model(self, cell: Cell, method: str) -> Step:
        """The step whose model the method stands for: a teacher, a pretrained or a fine-tuned student."""
        settings = self.config["methods"][method]
        if "teacher" in settings:
            return self.teacher(cell, settings["teacher"])
        return self.finetune(cell, method) if "finetune" in settings else self.pretrain(cell, settings["pretrain"])

    def evaluate(self, cell: Cell, method: str) -> Step:
        """Scores the model on the test list, into the folder of its training."""
        model, teacher = self.model(cell, method), self.config["methods"][method].get("teacher")
        own = {**_labels(cell), "budget": cell.budget, "seed": cell.seed, "method": method}
        own |= {"output_dir": model.folder, "model_dir": f"{model.folder}/models"}
        own |= {} if teacher else {"in_channels": self._channels(cell)}
        shared = self.config["teachers"][teacher] if teacher else {}
        place, needs = f"{model.folder}/evaluate", [self.prepare(cell), model]
        bundle = TEACHER if teacher else STUDENT
        stage = self._model(method)
        stage["configs"] = [*stage["configs"], "evaluate"]
        step = self._run("evaluate", bundle, place, needs, cell, stage, own, shared)
        return replace(step, output=f"{model.folder}/metrics.csv", folder=None)

    def profile(self, dataset: str, method: str) -> Step:
        """Parameters, multiply-adds and speed of a method's network."""
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
        place = f"{model.folder}/profile"
        return Step("profile", place, f"{place}.json", (*command, "--output", f"{place}.json"), (model,))

    def report(self, dataset: str) -> Step:
        """The report on one data set."""
        settings, place = self.config.get("report", {}), f"{self.output}/{dataset}/report"
        methods, cells = self.methods(dataset), list(self.cells(dataset))
        runs = [self.evaluate(cell, method) for method in methods for cell in cells]
        needs = runs + [self.profile(dataset, method) for method in methods if settings.get("profile")]
        folders = [run.path.removesuffix("/evaluate") for run in runs]
        values = {"output": place}
        if settings.get("reference") in methods:
            values["reference"] = settings["reference"]
        if len(self.folds) == 1:
            values["dataset-file"] = f"{self.prepare(cells[0]).folder}/dataset.json"
            drawn = {str(step.folder) for step in _ancestors(runs) if step.rule == "synthesise"}
            if len(drawn) == 1:  # those of several budgets would need a section each
                values["synthetic"] = drawn.pop()
        about = json.dumps({"study": self.config["name"], "methods": {m: self._about(cells[0], m) for m in methods}})
        command = ("tskd.workflow.study_report", about, *folders, *options(values))
        return Step("report", place, f"{place}/report.html", command, tuple(needs), folder=place)

    def _about(self, cell: Cell, method: str) -> dict[str, Any]:
        """What a method is in words, and the steps of one training of it."""
        settings = self.config["methods"][method]
        start = self.config.get("pretraining", {}).get(settings.get("pretrain"), {})
        if "teacher" in settings:
            what = f"the teacher: foundation model {settings['teacher']}, fine-tuned on the labels"
        else:
            parts = [f"distilled from {start['teacher']}"] if "teacher" in start else []
            parts += [f"pretrained ({', '.join(start['configs'])})"] if start and "teacher" not in start else []
            parts += ["trained on the labels"] if "finetune" in settings else []
            what = f"student, {', then '.join(parts)}" + ("" if start else " alone")
        model = self.model(cell, method)
        own = {step.log: step.title for step in [*_ancestors([model])] if step.configs}
        return {
            "what": what,
            "teacher": "teacher" in settings,
            "stages": [[title, log] for log, title in reversed(own.items())],
        }

    # --- parts -------------------------------------------------------------------------------------------------------

    def _run(
        self, rule: str, bundle: str, place: str, needs: Iterable[Step], cell: Cell, stage: Mapping[str, Any],
        own: Mapping[str, Any], entity: Mapping[str, Any] | None = None, base: str = "train",
    ) -> Step:  # fmt: skip
        """A step that runs a bundle: its own keys, then those that the study, the data set and the stage set."""
        dataset = self.config["datasets"][cell.dataset]
        images = ("images_2d",) if dataset.get("images_2d") and bundle != DDPM else ()
        configs = (base, *images, *stage.get("configs", ()))
        classes = {} if bundle == DDPM else {"num_classes": dataset["num_classes"]}
        shared = shared_overrides(self.config, bundle, cell.dataset)
        chosen = {
            **{key: value for key, value in shared.items() if has_key(bundle, configs, key)},
            **(entity or {}).get("overrides", {}),
            **stage.get("overrides", {}),
        }
        values = {"dataset_dir": f"{self._at(cell)}/dataset", **classes, **own}
        values |= {key: fill(self.config, value) for key, value in chosen.items()}
        command = bundle_command(bundle, configs, values)
        output = f"{place}/{MADE[rule]}"
        return Step(rule, place, output, command, tuple(needs), place, (bundle, configs), tuple(chosen))

    def _at(self, cell: Cell) -> str:
        return f"{self.output}/{cell.dataset}/{cell.fold}"

    def _channels(self, cell: Cell) -> int:
        return self.config["datasets"][cell.dataset]["in_channels"]

    def _trained(self, teacher: str) -> bool:
        return "train" in self.config["teachers"][teacher]

    @property
    def _draw(self) -> int:
        return self.config["synthesis"].get("seed", self.config["seeds"][0])


def _labels(cell: Cell) -> dict[str, Any]:
    """The key that limits the labels; none where all of them count."""
    return {} if cell.budget == "all" else {"num_labelled": cell.budget}


def _model(bundle: str, stage: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a training's stage that its model goes on with: overlays that define a network, and keys of MODEL."""
    overlays = [name for name in stage.get("configs", ()) if defines_network(bundle, name)]
    overrides = {key: value for key, value in stage.get("overrides", {}).items() if key.split("#")[0] in MODEL}
    return {"configs": overlays, "overrides": overrides}


def _ancestors(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield from _ancestors(step.needs)
