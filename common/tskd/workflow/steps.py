"""The parts of a study: a step, and where in the study it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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


class Cell(NamedTuple):
    """One training of a study: where a step stands in it."""

    dataset: str
    fold: str
    budget: int | str  # labelled training images: a number, or "all"
    seed: int

    @property
    def arm(self) -> str:
        """Folder of what depends on the labels and the seed."""
        return f"budget-{self.budget}/seed-{self.seed}"
