"""What a schema cannot say about a study: names that lead nowhere, stages without input, unknown keys of a config."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.options import unknown_key
from tskd.workflow.commands import SECTIONS, config_files, has_key, merged_config
from tskd.workflow.rounds import round_name
from tskd.workflow.schema import refuse, schema_problems
from tskd.workflow.study import TRAINED, Study, teachers_of
from tskd.workflow.teachers import read_teacher

OWN = frozenset({  # set by the study itself, so that steps find each other's files
    "dataset_dir", "dataset_file", "dataset_files", "output_dir", "model_dir", "model_file", "num_labelled",
    "num_classes", "seed", "soft_labels", "synthetic_dir", "num_images", "transfer_files", "teacher_model", "method",
    "section", "resume",
})  # fmt: skip


def check_study(config: Mapping[str, Any], where: str = "study") -> Study:
    """Return the study of an experiment file's content.

    Raises:
        TskdError: every problem of the file in one message, each with its place, what was expected and what was found.
    """
    refuse(schema_problems(config, "study.schema.json"), where)
    refuse(sorted({*_names(config), *_stages(config), *_given(config)}), where)
    refuse(list(_circles(config)), where)
    study = Study(config)
    refuse(sorted({*_overrides(study), *_sections(config, study)}), where)
    return study


def _names(config: Mapping[str, Any]) -> Iterator[str]:
    """Return references to data sets, teachers, pretrainings and methods that do not exist."""
    for name, method in config["methods"].items():
        for key, known in (("teacher", "teachers"), ("pretrain", "pretraining")):
            yield from unknown_names(
                f"methods/{name}/{key}", [method[key]] if key in method else [], config.get(known, {})
            )
        yield from unknown_names(f"methods/{name}/datasets", method.get("datasets", []), config["datasets"])
    for name, pretraining in config.get("pretraining", {}).items():
        yield from unknown_names(f"pretraining/{name}/teacher", teachers_of(pretraining), config.get("teachers", {}))
        start = [pretraining["start"]] if isinstance(pretraining.get("start"), str) else []
        yield from unknown_names(f"pretraining/{name}/start", start, config["methods"])
    for name, teacher in config.get("teachers", {}).items():
        method = [teacher["method"]] if "method" in teacher else []
        yield from unknown_names(f"teachers/{name}/method", method, config["methods"])
    reference = config.get("report", {}).get("reference")
    yield from unknown_names("report/reference", [reference] if reference else [], config["methods"])
    for dataset in config["datasets"]:
        if not any(dataset in method.get("datasets", [dataset]) for method in config["methods"].values()):
            yield f"datasets/{dataset}: expected a method that runs on it, found none"


def unknown_names(key: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Return a line for each of `names` that is not `known`."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            yield f"{key}: expected one of {', '.join(known) or '(there is none)'}; found {name}{hint}"


def _stages(config: Mapping[str, Any]) -> Iterator[str]:
    """Stages that lack what they build on."""
    folds = config.get("folds", {})
    for fold in folds.get("run", []):
        if fold >= folds["of"]:
            yield f"folds/run: expected folds from 0 to {folds['of'] - 1}, found {fold}"
    for name, settings in config["datasets"].items():
        if folds and "dataset_dir" in settings:
            yield f"datasets/{name}: expected prepare, which makes the folds, found dataset_dir: its split is made"
        elif folds and settings["prepare"]["preparer"] == "phantom":
            yield f"datasets/{name}: expected a data set of patients for the folds, found phantom, which has none"
    if "label_maps" in config.get("synthesis", {}).get("train", {}).get("configs", ()):
        yield (
            "synthesis/train/configs: expected a generator that sees no labels, as one serves all budgets, found "
            "label_maps. Train that one by hand"
        )
    teachers, pretraining = config.get("teachers", {}), config.get("pretraining", {})
    for name, settings in pretraining.items():
        transfer, images = settings.get("transfer", {}), config.get("synthesis", {}).get("num_images")
        wanted = transfer.get("synthetic")
        if wanted is not None and images is None:
            yield f"pretraining/{name}/transfer/synthetic: expected the key synthesis of the study, found none"
        elif isinstance(wanted, int) and wanted > images:
            yield f"pretraining/{name}/transfer/synthetic: expected at most the {images} of synthesis, found {wanted}"
        weights, taught_by = settings.get("teacher_weights"), teachers_of(settings)
        if weights is not None and len(weights) != len(taught_by):
            yield (
                f"pretraining/{name}/teacher_weights: expected a number for each of the {len(taught_by)} teachers, "
                f"found {weights}"
            )
        start = settings.get("start")
        if isinstance(start, str) and "finetune" not in config["methods"].get(start, {"finetune": None}):
            yield f"pretraining/{name}/start: expected a method with finetune, found {start}"
        if f"{name}_start" in config["methods"]:
            yield f"methods/{name}_start: expected another name, found that of the start of pretraining/{name}"
        for number in range(1, settings.get("rounds", 1)):
            if (one := round_name(name, number)) in {*config["methods"], *pretraining, *teachers}:
                yield f"{one}: expected another name, found that of a round of pretraining/{name}"
        if "files" in transfer and not transfer.get("real"):
            yield f"pretraining/{name}/transfer/files: expected real beside it, found none"
        if "teacher" in settings and not (transfer.get("real") or wanted):
            yield f"pretraining/{name}: expected a transfer set (real, synthetic or both) for the teacher, found none"
    for name, method in config["methods"].items():
        key, start = f"methods/{name}", pretraining.get(method.get("pretrain"), {})
        if "teacher" in method:
            if len(method.keys() - {"datasets"}) > 1:
                yield f"{key}: expected teacher alone, found {', '.join(sorted(method.keys() - {'datasets'}))}"
            if "train" not in teachers.get(method["teacher"], {"train": {}}):
                yield f"{key}/teacher: expected a teacher with the key train, found {method['teacher']} without"
        elif "finetune" not in method and "start" not in start and not _taught(start, teachers):
            yield f"{key}: expected finetune, as its model has not seen the task; found {', '.join(sorted(method))}"
    yield from _twice(config["methods"])


def _taught(pretraining: Mapping[str, Any], teachers: Mapping[str, Any]) -> bool:
    """Return whether a teacher of the pretraining has seen labels."""
    return any(not TRAINED.isdisjoint(teachers.get(name, {})) for name in teachers_of(pretraining))


def _given(config: Mapping[str, Any]) -> Iterator[str]:
    """Teachers and data sets that are to be there already."""
    for name, settings in config["datasets"].items():
        if (given := settings.get("dataset_dir")) and not Path(given, "dataset.json").is_file():
            yield f"datasets/{name}/dataset_dir: expected a folder with dataset.json, found none in {given}"
    for name, teacher in config.get("teachers", {}).items():
        if len(origins := sorted(TRAINED & teacher.keys())) > 1:
            yield f"teachers/{name}: expected one of {', '.join(sorted(TRAINED))}, found {' and '.join(origins)}"
        if "run" in teacher:
            try:
                read_teacher(Path(teacher["run"]))
            except TskdError as error:
                yield f"teachers/{name}/run: {error}"


def _circles(config: Mapping[str, Any]) -> Iterator[str]:
    """Teachers that are students of themselves."""
    teachers, pretraining = config.get("teachers", {}), config.get("pretraining", {})

    def before(method: str) -> set[str]:
        """Return methods whose students the method stands on."""
        start = pretraining.get(config["methods"][method].get("pretrain"), {})
        methods = {teachers[name]["method"] for name in teachers_of(start) if "method" in teachers[name]}
        return methods | ({start["start"]} if isinstance(start.get("start"), str) else set())

    for method in config["methods"]:
        seen: set[str] = set()
        waiting = [method]
        while waiting:
            needed = before(waiting.pop())
            if method in needed:
                yield f"methods/{method}: expected a student that others teach, found one that stands on itself"
                break
            waiting += needed - seen
            seen |= needed


def _twice(methods: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Methods that would evaluate the same model into the same folder."""
    seen: dict[tuple[str, str], str] = {}
    for name, method in methods.items():
        if "finetune" not in method:
            key = ("teacher", method["teacher"]) if "teacher" in method else ("pretrain", method.get("pretrain", ""))
            if key in seen:
                yield f"methods/{name}: expected another model than methods/{seen[key]}, found the same {' '.join(key)}"
            seen.setdefault(key, name)


def _sections(config: Mapping[str, Any], study: Study) -> Iterator[str]:
    """Keys of the shared sections that no run of their bundles has."""
    scopes = {"overrides": config, **{f"datasets/{name}/overrides": each for name, each in config["datasets"].items()}}
    for scope, holder in scopes.items():
        for section, keys in holder.get("overrides", {}).items():
            runs = {
                step.configs
                for step in study.steps.values()
                if step.configs and section in ("all", SECTIONS[step.configs[0]])
            }
            for key in keys:
                if runs and not any(has_key(*run, key) for run in runs):
                    problem = unknown_key(key, merged_config(*min(runs)))
                    yield f"{scope}/{section}: override {key}: {problem}"


def _overrides(study: Study) -> Iterator[str]:
    """Configs that do not exist, and keys that the configs of a step do not have."""
    checked = set()
    for step in study.steps.values():
        if step.configs is None or (step.configs, step.overrides) in checked:
            continue
        checked.add((step.configs, step.overrides))
        bundle, configs = step.configs
        where = f"{step.rule} ({bundle}: {', '.join(configs)})"
        paths = zip(configs, config_files(bundle, configs), strict=True)
        if missing := [name for name, path in paths if not Path(path).is_file()]:
            yield f"{where}: expected configs of the bundle, found no {', '.join(missing)}"
            continue
        merged = merged_config(bundle, configs)
        for key in step.overrides:
            if key in OWN:
                yield f"{where}: {key} is set by the study, leave it out"
            elif problem := unknown_key(key, merged):
                yield f"{where}: override {key}: {problem}"
