"""The error that a user can act on."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
from collections.abc import Iterator
from types import TracebackType

_ONE_VALUE = tuple(f"Expected more than 1 {what} when training" for what in ("value per channel", "spatial element"))


_ENDED = re.compile("killed|exited unexpectedly")
_UNREAD = re.compile(r"^LoadImage cannot find a suitable reader for file: (?P<file>.+)\.$", re.MULTILINE)
_DAMAGED = ("cannot identify image file", "image file is truncated", "broken data stream")  # Pillow's words
_FULL = os.strerror(errno.ENOSPC)
_COMPILER = ("torch._dynamo.exc", "torch._inductor.exc")


class TskdError(ValueError):
    """Input, configuration or file that cannot be used: says what was expected, what was found, where, and the fix."""


def plain_errors() -> None:
    """End the process with only the message when a user can act on the cause, however deep MONAI has wrapped it."""
    sys.excepthook = _excepthook
    threading.excepthook = _thread_excepthook


def user_message(error: BaseException) -> str | None:
    """Return what a user should read of an exception; None where nothing is known of its causes."""
    for cause in _causes(error):
        if isinstance(cause, TskdError):
            return str(cause)
    for cause in _causes(error):
        of_disk = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        if of_disk or _FULL in str(cause):  # writers in other languages than Python say it in their own errors
            name = getattr(cause, "filename", None)
            prefix = f"{name}: " if name else ""
            return f"{prefix}no space left on the disk. Free some and run the command again; what is finished is kept."
    for cause in _causes(error):
        if type(cause).__module__.startswith(_COMPILER):
            said = " ".join(str(cause).split()).removesuffix(".")
            return (
                f"compile: expected a network that torch.compile takes on this machine, found {said[:200]}. Train "
                "with --compile False; tskd doctor --install looks at the compiler."
            )
    for cause in _causes(error):
        if isinstance(cause, FileNotFoundError) and cause.filename:
            return _gone(cause.filename)
        if isinstance(cause, RuntimeError) and (match := _UNREAD.search(str(cause))):  # all that MONAI says of a file
            if not os.path.exists(match["file"]):
                return _gone(match["file"])
            return f"{match['file']}: expected a readable image, found a damaged or other file. Copy it again."
        if isinstance(cause, OSError) and str(cause).startswith(_DAMAGED):
            return f"expected readable images, found one damaged ({cause}). `tskd check` names it: copy it again."
        if isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and cause.filename:
            what = "a folder to write to, found a read-only one"
            if cause.errno != errno.EROFS:
                what = f"leave to use it, found none ({cause.strerror})"
            return f"{cause.filename}: expected {what}. Choose another folder, or change its rights."
        if isinstance(cause, RuntimeError) and str(cause).startswith("DataLoader worker") and _ENDED.search(str(cause)):
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


def _gone(file: object) -> str:
    return (
        f"{file}: expected the file, found none (any more). Put it back, or mount its drive, and run the command "
        "again; what is finished is kept."
    )


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


def _thread_excepthook(arguments: threading.ExceptHookArgs) -> None:
    """Of a thread, such as TensorBoard's writer, whose error the process meets when it next writes."""
    message = None if arguments.exc_value is None else user_message(arguments.exc_value)
    if message is None:
        threading.__excepthook__(arguments)
    else:
        print(f"error: {message}", file=sys.stderr)
