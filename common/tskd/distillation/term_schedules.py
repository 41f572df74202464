"""Numbers of a distillation that change with the epochs: weights of terms and temperatures."""

from __future__ import annotations

from dataclasses import dataclass

from ignite.engine import Engine, Events

from tskd.distillation.distillation_loss import DistillationLoss
from tskd.errors import TskdError


@dataclass(frozen=True)
class Linear:
    """A straight line from `start` to `end` over `epochs` epochs, constant before and after.

    Called with the number of epochs that are over, it returns the value of the next one.

    Args:
        start: value of the first epochs.
        end: value that it comes to.
        epochs: length of the way, above 0.
        begin: epochs before it starts.
    """

    start: float
    end: float
    epochs: float
    begin: float = 0

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise TskdError(f"Linear: expected epochs above 0, found {self.epochs:g}. A constant needs no schedule.")

    def __call__(self, epoch: float) -> float:
        """Return the value after `epoch` epochs."""
        way = min(max((epoch - self.begin) / self.epochs, 0.0), 1.0)
        return self.start + way * (self.end - self.start)


class FollowSchedules:
    """Sets the scheduled numbers of a loss at the start of every epoch, also of a resumed run.

    Args:
        loss: the loss that is trained with.
    """

    def __init__(self, loss: DistillationLoss) -> None:
        self.loss = loss

    def attach(self, engine: Engine) -> None:
        """Register on `EPOCH_STARTED`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Advances the loss to the epochs that are over."""
        self.loss.set_epoch(engine.state.epoch - 1)
