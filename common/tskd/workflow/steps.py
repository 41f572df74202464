"""The parts of a study: a step, its files, and where in the study it stands."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tskd.files import write_json
from tskd.workflow.commands import config_files

TITLES = {  # rule -> what its step is called on the screen
    "weights": "weights of the foundation model",
    "prepare": "data",
    "ddpm": "DDPM: training",
    "synthesise": "DDPM: synthetic images",
    "transfer": "transfer set",
    "teacher": "teacher: fine-tuning of the foundation model",
    "soft_labels": "teacher: soft labels",
    "distil": "student: distillation",
    "rival": "student: rival pretraining",
    "finetune": "student: training on the labels",
    "evaluate": "evaluation",
    "profile": "size and speed",
    "report": "report",
}


@dataclass(frozen=True)
class Step:
    """One command of the study.

    Attributes:
        rule: the Snakemake rule it belongs to.
        path: its files without their endings: `path.done` is written last, `path.log` is the log.
        command: module and arguments for `python -m`.
        needs: steps that come first.
        folder: what the step makes and may clear, None where it only adds to the folder of another step.
        configs: (bundle, names of its configs) of a bundle's run.
        overrides: the keys that the study sets in these configs.
    """

    rule: str
    path: str
    command: tuple[str, ...]
    needs: tuple[Step, ...] = ()
    folder: str | None = None
    configs: tuple[str, tuple[str, ...]] | None = None
    overrides: tuple[str, ...] = ()

    @property
    def done(self) -> str:
        """The file that says that the step is finished."""
        return self.path + ".done"

    @property
    def inputs(self) -> list[str]:
        """Files that decide whether the step has to run again: the needed steps' `done`, and its configs."""
        return [step.done for step in self.needs] + list(config_files(*self.configs) if self.configs else ())

    @property
    def title(self) -> str:
        """What the step is called on the screen."""
        return TITLES[self.rule]


class Cell(NamedTuple):
    """One training of a study: where a step stands in it."""

    dataset: str
    fold: str
    budget: int | str  # labelled training images: a number, "3 patients" or "all"
    seed: int

    @property
    def arm(self) -> str:
        """Folder of what depends on the labels and the seed."""
        return f"budget-{self.budget_name}/seed-{self.seed}"

    @property
    def budget_name(self) -> str:
        """The budget as a part of a folder's name."""
        return str(self.budget).replace(" ", "-")


@dataclass(frozen=True)
class Record:
    """How a step goes and what its folder was made from, in the hidden file `.NAME.step.json` beside the folder.

    Attributes:
        id: new whenever the step starts anew.
        made_from: hash of its command and inputs.
        state: "running", "finished", "stopped" (by the user or the system) or "failed".
        seconds: time spent in it, over all its parts.
        began: when it went into `state`, in seconds since 1970.
        cause: why it failed.
    """

    id: str
    made_from: str
    state: str = "new"
    seconds: float = 0.0
    began: float = 0.0
    cause: str = ""

    def at(self, state: str, seconds: float, cause: str = "") -> Record:
        """The record from now on."""
        return replace(self, state=state, seconds=round(seconds, 1), began=time.time(), cause=cause)


def hidden(path: str, ending: str) -> Path:
    """The hidden file of a step, given by its path without endings."""
    return Path(path).parent / f".{Path(path).name}.{ending}"


def read_record(path: str) -> Record | None:
    """The record of the step with this path, None where it has none that can be read."""
    try:
        return Record(**json.loads(hidden(path, "step.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(path: str, record: Record) -> None:
    """Write the record of the step with this path."""
    write_json(hidden(path, "step.json"), asdict(record))


def read_progress(path: str) -> dict[str, Any]:
    """{"done", "total", "time"} of a running step, empty where it has not said anything yet."""
    try:
        return json.loads(hidden(path, "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
