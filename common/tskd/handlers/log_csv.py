"""Losses and metrics of a run as a small CSV, for reports."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from tskd import ranks
from tskd.files import atomic

COLUMNS = ("epoch", "step", "name", "value")


class LogCsv:
    """Appends the epoch's mean of each scalar of the engine's output to `path`, one row a value.

    The scalars are `loss` and, where the loss function reports its terms, one per term. They are summed on the device
    and read once an epoch. Several processes log the mean over all of them, which the first writes: a loss that is a
    mean over pixels then has the curve of one process with the batches of all. Rows of epochs that a resumed run
    repeats are dropped first.

    Args:
        path: CSV file with the columns epoch, step, name, value.
        validator: engine whose metrics are logged after each of its runs, or None.
        terms: object with a dict attribute `last_terms` (name -> scalar tensor), for example a sum of losses, or None.
    """

    def __init__(self, path: str | Path, validator: Engine | None = None, terms: object | None = None) -> None:
        self.path = Path(path)
        self.validator = validator
        self.terms = terms
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0
        self._begun = False

    def attach(self, engine: Engine) -> None:
        """Register on each epoch and iteration."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._validation, engine)

    def __call__(self, engine: Engine) -> None:
        """Add the iteration's scalars to the running sums."""
        output: Any = engine.state.output
        output = output[0] if isinstance(output, list) else output
        scalars = {"loss": output["loss"], **getattr(self.terms, "last_terms", {})}
        for name, value in scalars.items():
            value = torch.as_tensor(value).detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._count += 1

    def _begin(self, engine: Engine) -> None:
        """Run in the first epoch, not on STARTED: then a checkpoint is loaded, whatever the order of the handlers."""
        if self._begun:
            return
        self._begun = True
        if not ranks.is_first():
            return
        rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                complete = [row for row in csv.DictReader(file) if row.get("value")]  # a full disk cuts a row
            rows = [row for row in complete if int(row["epoch"]) < engine.state.epoch]
        with atomic(self.path) as draft, draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def _epoch(self, engine: Engine) -> None:
        means = ranks.mean(torch.stack([value.float() for value in self._sums.values()]) / self._count)
        self._append(engine, dict(zip(self._sums, means.tolist(), strict=True)))
        self._sums, self._count = {}, 0

    def _validation(self, validator: Engine, engine: Engine) -> None:
        self._append(engine, {f"validation_{name}": float(value) for name, value in validator.state.metrics.items()})

    def _append(self, engine: Engine, values: dict[str, float]) -> None:
        if not ranks.is_first():
            return
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(
                (engine.state.epoch, engine.state.iteration, name, f"{value:.6g}") for name, value in values.items()
            )
