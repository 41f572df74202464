"""Ships the network of a training that has no validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events

from common import ranks


class ExportLast:
    """Calls `export` on rank 0 when the training has ended: the last weights, for there is no metric to choose by.

    Args:
        export: writes what ships; called without arguments.
    """

    def __init__(self, export: Callable[[], Any]) -> None:
        self.export = export

    def attach(self, engine: Engine) -> None:
        """Registers on the end of the training."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Exports."""
        if ranks.is_first():
            self.export()
