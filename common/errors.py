"""The error that a user can act on."""

from __future__ import annotations

import sys
from types import TracebackType


class TskdError(ValueError):
    """Input, configuration or file that cannot be used: says what was expected, what was found, where, and the fix."""


def plain_errors() -> None:
    """Ends the process with only the message when a `TskdError` is the cause, however deep MONAI has wrapped it."""
    sys.excepthook = _excepthook


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TskdError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {cause}", file=sys.stderr)
