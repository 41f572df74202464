"""The error that a user can act on."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from types import TracebackType

_ONE_VALUE = tuple(f"Expected more than 1 {what} when training" for what in ("value per channel", "spatial element"))


class TskdError(ValueError):
    """Input, configuration or file that cannot be used: says what was expected, what was found, where, and the fix."""


def plain_errors() -> None:
    """Ends the process with only the message when a user can act on the cause, however deep MONAI has wrapped it."""
    sys.excepthook = _excepthook


def user_message(error: BaseException) -> str | None:
    """Return what a user should read of an exception; None where nothing is known of its causes."""
    for cause in _causes(error):
        if isinstance(cause, TskdError):
            return str(cause)
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            prefix = f"{cause.filename}: " if cause.filename else ""
            return f"{prefix}no space left on the disk. Free some and run the command again; what is finished is kept."
    for cause in _causes(error):
        if isinstance(cause, FileNotFoundError) and cause.filename:
            return (
                f"{cause.filename}: expected the file, found none (any more). Put it back, or mount its drive, and run "
                "the command again; what is finished is kept."
            )
        if isinstance(cause, OSError) and cause.errno == errno.EROFS:
            return f"{cause.filename}: expected a folder to write to, found a read-only one. Choose another folder."
        if isinstance(cause, RuntimeError) and "DataLoader worker" in str(cause) and "killed" in str(cause):
            return (
                f"num_workers: expected the loading processes to go on, found one ended ({cause}). Is the memory full? "
                "Lower num_workers, and run the command again; what is finished is kept."
            )
        if isinstance(cause, ValueError) and str(cause).startswith(_ONE_VALUE):
            return (
                "batch_size, image_size: expected more than one value a channel in every normalisation of the network, "
                f"found one ({str(cause).rpartition(', got ')[2]}). Raise batch_size to 2 or more, or image_size."
            )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    message = user_message(error)
    if message is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {message}", file=sys.stderr)
