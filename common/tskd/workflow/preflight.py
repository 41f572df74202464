"""What is looked at before the first training: every file, number and network that a study names, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tskd.cpus import cpus
from tskd.data.datalist import FILES, LISTS
from tskd.errors import TskdError
from tskd.workflow.commands import TEACHER, fill, shared_overrides
from tskd.workflow.contents import counts, never_labelled, overlay_sheet
from tskd.workflow.costs import Costs
from tskd.workflow.follow import duration
from tskd.workflow.plan import prepare_data, steps_to_run
from tskd.workflow.step_log import read_history
from tskd.workflow.steps import Cell, Step
from tskd.workflow.study import Study, teachers_of

FEW_IMAGES, FEW_PATIENTS = 20, 5
PATHS = ("images", "masks", "unlabelled", "table", "source")  # options of a preparer that are files or folders


@dataclass
class Preflight:
    """What was found.

    Attributes:
        problems: what stops the study, each with its place in the YAML.
        lines: what was seen, to print.
        steps: those that have to run, as Snakemake says, once the data are there.
        estimates: path of a step -> seconds.
    """

    problems: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    estimates: dict[str, float] = field(default_factory=dict)

    def refuse(self, where: str) -> None:
        """Raise a `TskdError` that lists all problems, if there are any."""
        if self.problems:
            count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
            raise TskdError(f"{where}: {count}\n" + "\n".join(f"  {problem}" for problem in self.problems))


def preflight(
    study: Study, environment: Mapping[str, str], measure: bool = True, cores: int | None = None
) -> Preflight:
    """Prepare and read the data of a study, build its networks, and time a few steps of its trainings.

    The data sets stay in the study's folder, where its first steps find them.

    Args:
        study: the study.
        environment: that lets steps find the process that has imported all (`warm.server`).
        measure: whether the networks are built and timed, where there is something to run.
        cores: CPU cores to prepare data with, all of this machine by default.
    """
    result = Preflight()
    result.problems += [*_paths(study), *_weights(study)]
    wrong = {problem.split("/")[1] for problem in result.problems if problem.startswith("datasets/")}
    names = [dataset for dataset in study.config["datasets"] if dataset not in wrong]
    wanted = [study.prepare(cell) for dataset in names for cell in _folds(study, dataset).values()]
    data_steps = {step.output for step in study.steps.values() if step.rule == "prepare"}
    pending = steps_to_run(study, environment)
    todo = {step.output for step in pending}
    prepare_data(study, [step for step in wanted if step.output in todo], cores or cpus(), environment)
    result.steps = [step for step in pending if step.output not in data_steps]
    for dataset in names:
        _data(study, dataset, result)
    if measure and result.steps:
        costs, steps = Costs(study, Path(study.output)), list(study.steps.values())
        named = tuple(problem.split("/overrides/")[0] + ":" for problem in result.problems)  # teachers without weights
        result.problems += [line for line in costs.measure(environment, steps) if not line.startswith(named)]
        if not result.problems:
            seconds = {step.path: costs.seconds(step) for step in steps}
            result.estimates = {path: value for path, value in seconds.items() if value is not None}
            result.lines += _times(steps, result.estimates)
    return result


def _paths(study: Study) -> Iterator[str]:
    for name, settings in study.config["datasets"].items():
        for key, value in settings.get("prepare", {}).get("options", {}).items():
            path = Path(str(fill(study.config, value))).expanduser()
            if key.replace("_", "-") in PATHS and not path.exists():
                yield f"datasets/{name}/prepare/options/{key}: expected a file or folder, found none at {path}"


def _weights(study: Study) -> Iterator[str]:
    from tskd.networks.weight_store import find_weights

    used = {method.get("teacher") for method in study.config["methods"].values()}
    used |= {name for pretraining in study.config.get("pretraining", {}).values() for name in teachers_of(pretraining)}
    for name, teacher in study.config.get("teachers", {}).items():
        shared = shared_overrides(study.config, TEACHER, next(iter(study.config["datasets"])))
        keys = {**shared, **teacher.get("overrides", {}), **teacher.get("train", {}).get("overrides", {})}
        weights = fill(study.config, keys.get("weights"))
        if name in used and isinstance(weights, str) and not weights.startswith(("$", "@")) and "@" not in weights:
            try:
                find_weights(weights, str(keys.get("vfm", "sam_vit_b")))
            except TskdError as error:
                yield f"teachers/{name}/overrides/weights: {error}"


def _folds(study: Study, dataset: str) -> dict[str, Cell]:
    """Return a cell of each fold."""
    return {cell.fold: cell for cell in study.cells(dataset)}


def _data(study: Study, dataset: str, result: Preflight) -> None:
    """Compare what was prepared, in each fold, with what the study says."""
    for number, (fold, cell) in enumerate(_folds(study, dataset).items()):
        step = study.prepare(cell)
        if Path(step.output).is_file():
            _compare(study, dataset, cell, Path(step.output), result, number == 0)
            continue
        histories = [read_history(each.log) for each in (*step.needs, step)]
        causes = [history.cause for history in histories if history and history.state == "failed"]
        cause = causes[0] if causes else f"it could not be made in {fold}, see {study.output}/train.log"
        result.problems.append(f"datasets/{dataset}/prepare: {cause}")
        return


def _compare(study: Study, dataset: str, cell: Cell, file: Path, result: Preflight, first: bool) -> None:
    from tskd import data

    settings, content = study.config["datasets"][dataset], data.read(file)
    section, labelled = f"datasets/{dataset}", len(content["training"])
    if missing := [path for path in _files(file, content) if not path.is_file()]:
        remedy = "" if "dataset_dir" in settings else f" Delete the folder {file.parent}: the study makes it again."
        result.problems.append(
            f"{section}: expected the files that {file} lists, found no {missing[0]} ({len(missing)} are missing)."
            + remedy
        )
        return
    wanted = {"num_classes": len(content["labels"]), "in_channels": content["channels"]}
    volumes = any(entry["image"].endswith((".nii", ".nii.gz")) for entry in [*content["validation"], *content["test"]])
    wanted["images_2d"] = not volumes
    problems = [
        f"{section}/{key}: expected {value}, as the data have, found {settings.get(key, False)}"
        for key, value in wanted.items()
        if settings.get(key, False) != value
    ]
    problems += [
        f"{section}/budgets: expected at most the {labelled} labelled training images ({cell.fold}), found {budget}"
        for budget in settings.get("budgets", [])
        if isinstance(budget, int) and budget > labelled
    ]
    patients = len({entry["group"] for entry in content["training"]})
    problems += [
        f"{section}/num_labelled_groups: expected at most the {patients} training patients ({cell.fold}), found {count}"
        for count in settings.get("num_labelled_groups", [])
        if count > patients
    ]
    problems += [
        f"{section}: expected images in the list {n}, found none" for n in ("validation", "test") if not content[n]
    ]
    result.problems += [problem for problem in problems if problem not in result.problems]
    if first:
        sheet = Path(study.output) / dataset / "preflight.png"
        modality = "modality unknown" if content["modality"] == "unknown" else content["modality"]
        where = f", {cell.fold}" if "folds" in study.config else ""
        result.lines += [f"{dataset}: {modality}{where}", *counts(file, content)]
        result.lines += _few(content)
        overlay_sheet(file, content, sheet)
        result.lines.append(f"  images with their labels, to look at before you train: {sheet}")
    if not problems:
        result.lines += _never_labelled(study, dataset, cell, file, content)


def _files(file: Path, content: Mapping[str, Any]) -> Iterator[Path]:
    """Every image and label of a data set."""
    for name in LISTS:
        for entry in content[name]:
            yield from (file.parent / entry[key] for key in FILES if key in entry)


def _never_labelled(study: Study, dataset: str, cell: Cell, file: Path, content: Mapping[str, Any]) -> Iterator[str]:
    """Return a line for each budget that lacks a structure: the names of what it cannot teach."""
    where = f", {cell.fold}" if "folds" in study.config else ""
    for budget in study.budgets(dataset):
        if missing := never_labelled(file, content, None if budget == "all" else budget):
            yield (
                f"  note: budget {budget}{where}: no labelled image has {', '.join(missing)}, so no method can find "
                "what it has not seen. More labels are needed, or other ones."
            )


def _few(content: Mapping[str, Any]) -> list[str]:
    """Return what few labels or patients mean for the split."""
    lines = []
    patients = {entry["group"] for name in ("training", "validation", "test") for entry in content[name]}
    tested = len({entry["group"] for entry in content["test"]})
    if len(patients) < FEW_PATIENTS:
        folds = max(len(patients), 2)
        lines.append(
            f"  note: {len(patients)} patients in all, {tested} of them in the test list. Its numbers say little about "
            f"the next patient, and no test can show a difference. `folds: {{of: {folds}}}` tests each patient once."
        )
    if len(content["training"]) < FEW_IMAGES:
        lines.append(
            f"  note: {len(content['training'])} labelled training images. The result depends on which ones they are: "
            "give several seeds (`seeds: [0, 1, 2]`), and further images without labels (`unlabelled`)."
        )
    return lines


def _times(steps: list[Step], estimates: Mapping[str, float]) -> list[str]:
    lines, rules = ["expected on this machine, from a few measured steps:"], dict.fromkeys(step.rule for step in steps)
    for rule in rules:
        same_rule = [step for step in steps if step.rule == rule]
        known = [estimates[step.path] for step in same_rule if step.path in estimates]
        if known:
            total = duration(sum(known) * len(same_rule) / len(known))
            lines.append(
                f"  {same_rule[0].title}: {total}" + (f" ({len(same_rule)} times)" if len(same_rule) > 1 else "")
            )
    return [*lines, f"  in all: about {duration(sum(estimates.values()))}, one step after the other"]
