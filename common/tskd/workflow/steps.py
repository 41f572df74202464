"""The parts of a study: a step, its files, and where in the study it stands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tskd.workflow.commands import config_files

TITLES = {  # rule -> what its step is called on the screen
    "weights": "weights of the foundation model",
    "prepare": "data",
    "ddpm": "DDPM: training",
    "synthesise": "DDPM: synthetic images",
    "transfer": "transfer set",
    "teacher": "teacher: fine-tuning of the foundation model",
    "bundle": "teacher: bundle of a student",
    "soft_labels": "teacher: soft labels",
    "distil": "student: distillation",
    "rival": "student: rival pretraining",
    "finetune": "student: training on the labels",
    "evaluate": "evaluation",
    "profile": "size and speed",
    "report": "report",
}


_MODEL = "models/model.pt"
MADE = {  # rule -> what a run of a bundle makes in its folder, in the end
    **dict.fromkeys(("ddpm", "teacher", "distil", "rival", "finetune"), _MODEL),
    "synthesise": "dataset.json", "soft_labels": "manifest.json", "evaluate": "metrics.csv",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One command of the study.

    Attributes:
        rule: the Snakemake rule it belongs to.
        path: `path.log` is its log.
        output: what it makes, the file that Snakemake looks at; written last, or at the end of a training.
        command: module and arguments for `python -m`.
        needs: steps that come first.
        folder: what the step makes and may clear, None where it only adds to the folder of another step.
        configs: (bundle, names of its configs) of a bundle's run.
        overrides: the keys that the study sets in these configs.
    """

    rule: str
    path: str
    output: str
    command: tuple[str, ...]
    needs: tuple[Step, ...] = ()
    folder: str | None = None
    configs: tuple[str, tuple[str, ...]] | None = None
    overrides: tuple[str, ...] = ()

    @property
    def inputs(self) -> list[str]:
        """Files that decide whether the step has to run again: the needed steps' outputs, and its configs."""
        return [step.output for step in self.needs] + list(config_files(*self.configs) if self.configs else ())

    @property
    def given(self) -> bool:
        """Whether it is there already: a data set or a teacher that the study names and does not make."""
        return not self.command

    @property
    def log(self) -> str:
        """All that its command prints, see `step_log`."""
        return self.path + ".log"

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


def hidden(path: str, ending: str) -> Path:
    """Return the hidden file of a step, given by its path without endings."""
    return Path(path).parent / f".{Path(path).name}.{ending}"


def read_progress(path: str) -> dict[str, Any]:
    """Return {"done", "total", "time"} of a running step, empty where it has not said anything yet."""
    try:
        return json.loads(hidden(path, "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
