"""Read the files of finished runs, and group their rows by arm and seed."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tskd.errors import TskdError
from tskd.evaluation.rows import MetricRow, natural, read_rows


class Arm(NamedTuple):
    """What is compared: a method trained with a budget of labels on a dataset, over all its seeds."""

    dataset: str
    budget: str
    method: str


class Curve(NamedTuple):
    """A logged value over training steps."""

    stage: str
    name: str
    step: NDArray
    value: NDArray


@dataclass(frozen=True)
class Run:
    """The files of one run folder. Only metrics.csv is required; what is absent is empty."""

    path: Path
    rows: list[MetricRow]
    name: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    cases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    curves: Sequence[Curve] = ()

    @property
    def arms(self) -> dict[tuple[Arm, str], list[MetricRow]]:
        """Rows of each (arm, seed) in the folder; usually one."""
        rows_by_arm: dict[tuple[Arm, str], list[MetricRow]] = {}
        for row in self.rows:
            rows_by_arm.setdefault((Arm(row.dataset, row.budget, row.method), row.seed), []).append(row)
        return rows_by_arm


Arms = dict[Arm, dict[str, list[MetricRow]]]


def load_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Read run folders, each named by the last parts of its path that tell it from the others.

    Raises:
        TskdError: as `load_run`.
    """
    folders = list(dict.fromkeys(Path(path).resolve() for path in paths))
    return [load_run(folder, name) for folder, name in zip(folders, _shortest_unique_names(folders), strict=True)]


def load_run(path: Path, name: str = "") -> Run:
    """Read a run folder; `name` is what the report calls it, the folder's own name by default.

    Raises:
        TskdError: no metrics.csv, or a file of the folder that cannot be read.
    """
    path = Path(path)
    if not (path / "metrics.csv").is_file():
        raise TskdError(f"{path}: expected a run folder with metrics.csv, found none. Run the evaluation first.")
    return Run(
        path=path,
        rows=read_rows(path / "metrics.csv"),
        name=name or path.name,
        summary=_json(path / "summary.json"),
        cases=_json(path / "cases.json"),
        profile=_json(path / "profile.json"),
        versions={_stage(path, file): _json(file) for file in sorted(path.rglob("versions.json"))},
        curves=[curve for file in sorted(path.rglob("train_log.csv")) for curve in _curves(file, _stage(path, file))],
    )


def collect(runs: Iterable[Run]) -> Arms:
    """Return the rows of all runs by arm and seed, in order of appearance, budgets ascending within a dataset.

    Raises:
        TskdError: two folders hold the same case of the same arm and seed.
    """
    arms: Arms = {}
    folder_of: dict[tuple[Arm, str, str], Path] = {}
    for run in runs:
        for (arm, seed), rows in run.arms.items():
            for case in {row.case for row in rows}:
                first_folder = folder_of.setdefault((arm, seed, case), run.path)
                if first_folder != run.path:
                    raise TskdError(
                        f"{run.path} and {first_folder} both hold case {case!r} of {arm.method!r}, "
                        f"budget {arm.budget}, seed {seed}. Give each run a `method` or `seed` of its own, or name "
                        "only one of the folders."
                    )
            arms.setdefault(arm, {}).setdefault(seed, []).extend(rows)
    datasets = list(dict.fromkeys(arm.dataset for arm in arms))
    order = sorted(arms, key=lambda arm: (datasets.index(arm.dataset), budget_number(arm.budget)))
    return {arm: arms[arm] for arm in order}


def run_order(run: Run, arms: Arms) -> tuple[object, ...]:
    """Sort key of runs: dataset, method and budget as in `arms`, then seed."""
    arm, seed = next(iter(run.arms))
    methods = list(dict.fromkeys(known.method for known in arms))
    datasets = list(dict.fromkeys(known.dataset for known in arms))
    return datasets.index(arm.dataset), methods.index(arm.method), budget_number(arm.budget), natural(seed)


def budget_number(budget: str) -> float:
    """Return the number of labels, infinite for a budget that is no number ("all")."""
    try:
        return float(budget)
    except ValueError:
        return float("inf")


def distance_unit(runs: Iterable[Run], dataset: str) -> str:
    """Return the unit of the distances of a dataset: "mm", or "pixels" where its files have no spacing."""
    units = {
        str(case.get("unit", "mm"))
        for run in runs
        if any(row.dataset == dataset for row in run.rows)
        for case in run.cases.values()
    }
    return {"pixel": "pixels", "mm": "mm"}.get(
        units.pop() if len(units) == 1 else "", "mm or pixels" if units else "mm"
    )


def _shortest_unique_names(folders: Sequence[Path]) -> list[str]:
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]


def _stage(run: Path, file: Path) -> str:
    stage = file.parent.relative_to(run).as_posix()
    return "" if stage == "." else stage


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TskdError(f"{path}: expected JSON, found {error}. Delete the file or run the stage again.") from error
    if not isinstance(content, dict):
        raise TskdError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def _curves(path: Path, stage: str) -> list[Curve]:
    points: dict[str, list[tuple[float, float]]] = {}
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = {"step", "name", "value"} - set(reader.fieldnames or [])
        if missing:
            raise TskdError(f"{path}: expected the columns epoch, step, name, value; missing {sorted(missing)}.")
        for number, row in enumerate(reader, start=2):
            try:
                points.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
            except (TypeError, ValueError) as error:
                raise TskdError(f"{path}, line {number}: expected numbers in step and value, found {row}.") from error
    return [Curve(stage, name, *np.array(values).T) for name, values in points.items()]
