"""The handlers that every training needs, as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import LrScheduleHandler, StatsHandler, TensorBoardStatsHandler, ValidationHandler, from_engine
from torch.optim.lr_scheduler import LRScheduler

from tskd import ranks
from tskd.handlers.epoch_seed import EpochSeed
from tskd.handlers.list_output import ListOutput
from tskd.handlers.log_csv import LogCsv
from tskd.handlers.non_finite import StopOnNonFinite
from tskd.handlers.progress import Progress
from tskd.handlers.versions import WriteVersions


class StandardHandlers:
    """Seed each epoch, step the learning rate, stop on a NaN loss, validate, show progress and write the logs.

    In `output_dir`: train_log.csv (losses and metrics), tensorboard/ and versions.json (what the run was made with).
    Attach it after what has to happen before a validation, and before what exports and saves.

    Args:
        output_dir: folder of the run.
        seed: seed of the run.
        lr_scheduler: stepped after every iteration.
        name: what the progress bar says.
        validator: engine that validates, None for a training without validation.
        val_interval: epochs between two validations.
        terms: object whose `last_terms` are logged beside the loss, or None.
    """

    def __init__(
        self,
        output_dir: str | Path,
        seed: int,
        lr_scheduler: LRScheduler,
        name: str,
        validator: Evaluator | None = None,
        val_interval: int = 1,
        terms: object | None = None,
    ) -> None:
        self.log_dir = str(Path(output_dir) / "tensorboard")
        self.validator = validator
        self.versions = WriteVersions(output_dir)
        self.handlers: list[Any] = [
            EpochSeed(seed),
            LrScheduleHandler(lr_scheduler, print_lr=False, epoch_level=False),  # type: ignore[arg-type]
            ListOutput(),
            StopOnNonFinite(),
            Progress(name),
            LogCsv(Path(output_dir) / "train_log.csv", validator, terms),
        ]
        if validator is not None:
            self.handlers.append(ValidationHandler(val_interval, validator, epoch_level=True))

    def attach(self, engine: Engine) -> None:
        """Attach everything to the training `engine` and its validator; what writes files on the first rank only."""
        if ranks.is_first():
            self.versions.attach(engine)
            loss = from_engine(["loss"], first=True)
            TensorBoardStatsHandler(
                log_dir=self.log_dir, tag_name="train_loss", iteration_log=10, epoch_log=False, output_transform=loss
            ).attach(engine)
            if self.validator is not None:
                stats = StatsHandler(iteration_log=False, name="validation")
                stats.attach(self.validator)
                # the error is raised anyway; logged, a full disk would come with a traceback
                self.validator.remove_event_handler(stats.exception_raised, Events.EXCEPTION_RAISED)
                TensorBoardStatsHandler(log_dir=self.log_dir, iteration_log=False).attach(self.validator)
        for handler in self.handlers:
            handler.attach(engine)
