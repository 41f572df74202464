"""What is looked at before the first training: every file, number and network that a study names, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.workflow.commands import TEACHER, fill, shared_overrides
from tskd.workflow.contents import counts, overlay_sheet
from tskd.workflow.costs import Costs
from tskd.workflow.follow import duration, task
from tskd.workflow.step import make, run
from tskd.workflow.steps import Cell, Step
from tskd.workflow.study import Study

FEW_IMAGES, FEW_PATIENTS = 20, 5
PATHS = ("images", "masks", "unlabelled", "table", "source")  # options of a preparer that are files or folders


@dataclass
class Preflight:
    """What was found.

    Attributes:
        problems: what stops the study, each with its place in the YAML.
        lines: what was seen, to print.
        estimates: path of a step -> seconds.
    """

    problems: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    estimates: dict[str, float] = field(default_factory=dict)

    def refuse(self, where: str) -> None:
        """Raise a `TskdError` that lists all problems, if there are any."""
        if self.problems:
            count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
            raise TskdError(f"{where}: {count}\n" + "\n".join(f"  {problem}" for problem in self.problems))


def preflight(study: Study, environment: Mapping[str, str], measure: bool = True) -> Preflight:
    """Prepare and read the data of a study, build its networks, and time a few steps of its trainings.

    The data sets stay in the study's folder, where its first steps find them.

    Args:
        study: the study.
        environment: that lets steps find the process that has imported all (`warm.server`).
        measure: whether the networks are built and timed.
    """
    found = Preflight()
    found.problems += [*_paths(study), *_weights(study)]
    ready = []
    for dataset in study.config["datasets"]:
        if not [problem for problem in found.problems if problem.startswith(f"datasets/{dataset}/")]:
            ready += _data(study, dataset, found)
    if measure and not found.problems:
        costs = Costs(study, Path(study.output))
        steps = list(study.steps.values())
        found.problems += costs.measure(environment, steps)
        if not found.problems:
            seconds = {step.path: costs.seconds(step) for step in steps}
            found.estimates = {path: value for path, value in seconds.items() if value is not None}
            found.lines += _times(steps, found.estimates)
    return found


def _paths(study: Study) -> Iterator[str]:
    for name, settings in study.config["datasets"].items():
        for key, value in settings["prepare"].get("options", {}).items():
            path = Path(str(fill(study.config, value))).expanduser()
            if key.replace("_", "-") in PATHS and not path.exists():
                yield f"datasets/{name}/prepare/options/{key}: expected a file or folder, found none at {path}"


def _weights(study: Study) -> Iterator[str]:
    from tskd.networks.weights import find_weights

    used = {method.get("teacher") for method in study.config["methods"].values()}
    used |= {pretraining.get("teacher") for pretraining in study.config.get("pretraining", {}).values()}
    for name, teacher in study.config.get("teachers", {}).items():
        shared = shared_overrides(study.config, TEACHER, next(iter(study.config["datasets"])))
        keys = {**shared, **teacher.get("overrides", {}), **teacher.get("train", {}).get("overrides", {})}
        weights = fill(study.config, keys.get("weights"))
        if name in used and isinstance(weights, str) and not weights.startswith(("$", "@")) and "@" not in weights:
            try:
                find_weights(weights, str(keys.get("vfm", "sam_vit_b")))
            except TskdError as error:
                yield f"teachers/{name}/overrides/weights: {error}"


def _data(study: Study, dataset: str, found: Preflight) -> list[Step]:
    """Prepare a data set in its folds and compare it with what the study says."""
    ready: dict[str, Step] = {}
    cells = {cell.fold: cell for cell in study.cells(dataset)}
    for fold, cell in cells.items():
        step = study.prepare(cell)
        try:
            for needed in step.needs:  # all of the data, where the study takes a few of them
                run(task(study, needed))
            make(task(study, step))
        except (TskdError, OSError) as error:
            text = str(error).partition(": ")[2].partition("\n  log: ")[0] or str(error)
            found.problems.append(f"datasets/{dataset}/prepare: {text}")
            break
        ready[fold] = step
    for number, (fold, step) in enumerate(ready.items()):
        _compare(study, dataset, cells[fold], Path(str(step.folder), "dataset.json"), found, number == 0)
    return list(ready.values())


def _compare(study: Study, dataset: str, cell: Cell, file: Path, found: Preflight, first: bool) -> None:
    from tskd import data

    settings, content = study.config["datasets"][dataset], data.read(file)
    place, labelled = f"datasets/{dataset}", len(content["training"])
    wanted = {"num_classes": len(content["labels"]), "in_channels": content["channels"]}
    volumes = any(entry["image"].endswith((".nii", ".nii.gz")) for entry in [*content["validation"], *content["test"]])
    wanted["images_2d"] = not volumes
    problems = [
        f"{place}/{key}: expected {value}, as the data have, found {settings.get(key, False)}"
        for key, value in wanted.items()
        if settings.get(key, False) != value
    ]
    problems += [
        f"{place}/budgets: expected at most the {labelled} labelled training images ({cell.fold}), found {budget}"
        for budget in settings.get("budgets", [])
        if isinstance(budget, int) and budget > labelled
    ]
    patients = len({entry["group"] for entry in content["training"]})
    problems += [
        f"{place}/num_labelled_groups: expected at most the {patients} training patients ({cell.fold}), found {count}"
        for count in settings.get("num_labelled_groups", [])
        if count > patients
    ]
    problems += [
        f"{place}: expected images in the list {n}, found none" for n in ("validation", "test") if not content[n]
    ]
    found.problems += [problem for problem in problems if problem not in found.problems]
    if first:
        sheet = Path(study.output) / dataset / "preflight.png"
        found.lines += [f"{dataset}: {content['modality']}, {cell.fold}", *counts(file, content)]
        found.lines += _few(content)
        overlay_sheet(file, content, sheet)
        found.lines.append(f"  images with their labels, to look at before you train: {sheet}")


def _few(content: Mapping[str, Any]) -> list[str]:
    """What few labels or patients mean for the split."""
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
        own = [step for step in steps if step.rule == rule]
        known = [estimates[step.path] for step in own if step.path in estimates]
        if known:
            total = duration(sum(known) * len(own) / len(known))
            lines.append(f"  {own[0].title}: {total}" + (f" ({len(own)} times)" if len(own) > 1 else ""))
    return [*lines, f"  in all: about {duration(sum(estimates.values()))}, one step after the other"]
