"""One progress bar over a whole training."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events

from tskd import ranks
from tskd.progress_file import FollowedBar


class Progress:
    """Shows iterations done, the time left and the loss at the end of the last epoch, on rank 0.

    Args:
        name: what is trained.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._bar: FollowedBar | None = None

    def attach(self, engine: Engine) -> None:
        """Register on epochs, iterations and the end."""
        if not ranks.is_first():
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, self._finish)

    def __call__(self, engine: Engine) -> None:
        """Move the bar by one iteration."""
        if self._bar is not None:
            self._bar.update(1)

    def _begin(self, engine: Engine) -> None:
        if self._bar is not None:
            return
        total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
        self._bar = FollowedBar(
            total=total, initial=engine.state.iteration, desc=self.name, unit="step", mininterval=1.0
        )

    def _epoch(self, engine: Engine) -> None:
        if self._bar is not None:
            output: Any = engine.state.output
            output = output[0] if isinstance(output, list) else output
            self._bar.set_postfix(loss=f"{torch.as_tensor(output['loss']).item():.4f}")

    def _finish(self, engine: Engine, error: Exception | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if error is not None:
            raise error
