"""A tiny MONAI training whose every epoch draws random numbers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import nn

from tskd.data.sampler import EpochSampler
from tskd.handlers import BestModel, Checkpointing, EpochSeed


class Killed(Exception):
    """Stands for the end of the process."""


class Items(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, Any]:
        value = torch.full((4,), float(index))
        return {"image": value, "label": value[:1] * 2, "case": f"case_{index}"}


class Run:
    """One process of a training: fresh objects, handlers in the order given.

    Args:
        folder: output_dir.
        max_epochs: epochs of 3 iterations with 2 items.
        kill_after: the epoch after which the process ends.
        before: handlers attached before the checkpoint's; after: behind it.
    """

    def __init__(
        self, folder: Path, max_epochs: int = 4, kill_after: int | None = None, before: Sequence[Any] = (),
        after: Sequence[Any] = (), width: int = 4, network: nn.Module | None = None,
        extra: dict[str, Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        self.network = network or nn.Sequential(nn.Linear(4, width), nn.Dropout(0.3), nn.Linear(width, 1))
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
        objects = {"network": self.network, "optimizer": optimizer, "schedule": schedule, **(extra or {})}
        self.losses: list[float] = []
        self.order: list[str] = []
        torch.manual_seed(torch.seed())  # nothing may depend on the state that a process starts with
        data = Items()
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=max_epochs,
            train_data_loader=DataLoader(data, batch_size=2, sampler=EpochSampler(data, 6, seed=3), num_workers=0),
            network=self.network,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            decollate=False,
            train_handlers=[
                EpochSeed(5),
                LrScheduleHandler(schedule, epoch_level=False, print_lr=False),
                *before,
                Checkpointing(folder, objects, **options),
                *after,
            ],
        )
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._record)
        if kill_after is not None:
            self.trainer.add_event_handler(Events.EPOCH_STARTED(once=kill_after + 1), self._kill)

    def _record(self, engine: Engine) -> None:
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        self.losses.append(output["loss"].item())
        self.order += batch["case"]

    def _kill(self, engine: Engine) -> None:
        raise Killed

    def go(self) -> "Run":
        with suppress(Killed):
            self.trainer.run()
        return self


@pytest.fixture
def training() -> Callable[..., Run]:
    """Makes a `Run`; `.go()` runs it to its end or to its kill."""
    return Run


class Validation:
    """Runs a validator whose metric takes the given values, one a training epoch."""

    def __init__(self, values, cases: int = 1, **options) -> None:
        self.values, self.cases = values, cases
        self.validator = Engine(lambda *_: None)
        self.validator.add_event_handler(Events.EPOCH_COMPLETED, self._measure)
        self.exported: list[int] = []
        self.epoch = 0
        options = {"validator": self.validator, "metric": "dice", **options}
        self.best = BestModel(export=lambda: self.exported.append(self.epoch), **options)

    def _measure(self, validator: Engine) -> None:
        validator.state.metrics["dice"] = self.values[self.epoch - 1]

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        self.best.attach(engine)

    def __call__(self, engine: Engine) -> None:
        self.epoch = engine.state.epoch
        self.validator.run([0] * self.cases)


@pytest.fixture
def validation() -> type[Validation]:
    """Handler that validates after each epoch."""
    return Validation


@pytest.fixture
def run_engine() -> Callable[..., Engine]:
    """Function (handlers, epochs, step, data) that runs a bare engine with handlers to its end."""

    def run(handlers, epochs: int, step=lambda _engine, _batch: None, data=(0,)) -> Engine:
        engine = Engine(step)
        for handler in handlers:
            handler.attach(engine)
        engine.run(list(data), max_epochs=epochs)
        return engine

    return run


@pytest.fixture(params=["before", "after"])
def place(request: pytest.FixtureRequest) -> str:
    """Where in `training` a handler is attached: configs are free to order them."""
    return request.param
