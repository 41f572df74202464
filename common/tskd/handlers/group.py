"""Named handlers of a bundle config, attached as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine


class HandlerGroup:
    """Attaches named handlers in the order of the config.

    The names let an overlay change or disable one handler (`train#named_handlers#best#keep`) without knowing
    its position, while `train#handlers` stays the list that MONAI's experiment tracking and MONAI Label append to.

    Args:
        handlers: name -> handler with an `attach(engine)` method; a disabled handler (`_disabled_`) is None or absent.
    """

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self.handlers = {name: handler for name, handler in handlers.items() if handler is not None}

    def attach(self, engine: Engine) -> None:
        """Attach every handler to `engine`."""
        for handler in self.handlers.values():
            handler.attach(engine)
