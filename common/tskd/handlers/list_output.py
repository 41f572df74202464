"""The form of a trainer's output that MONAI's trackers read."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines import IterationEvents


class ListOutput:
    """Puts a trainer's output dictionary into a list of one.

    `--tracking mlflow` reads the loss with `from_engine(["loss"], first=True)`, which expects a list. MONAI's own way
    to one is `decollate`, which copies every loss to the host and takes the batch apart; here the loss stays on its
    device and the batch stays whole.
    """

    def attach(self, engine: Engine) -> None:
        """Register on the end of an optimisation step, before any handler of the iteration's end."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Replace the output."""
        state: Any = engine.state
        state.output = [state.output]
