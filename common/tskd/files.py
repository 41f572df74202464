"""Atomic file writes, SHA-256 checksums, and names of files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tskd.errors import TskdError
from tskd.file_content import sha256 as sha256

if TYPE_CHECKING:
    from filelock import FileLock


def composed(name: str) -> str:
    """Return a name with composed letters (Unicode NFC): archives of macOS have `a` and a dot for `ä`."""
    return unicodedata.normalize("NFC", name)


def files_below(root: Path, without: Path | None = None) -> list[Path]:
    """Return the visible files below a folder at any depth, those of linked folders, too, each folder once.

    A folder that lies below the root itself has the name that it has there, not that of a link to it. Files come in the
    order of their folders, then of their names.

    Args:
        root: the folder.
        without: resolved folder whose files are left out.
    """
    files: list[Path] = []
    visited: set[Path] = set()  # links may go round in a circle
    starts = [root]
    for start in starts:  # grows by the links that are met
        for folder, subfolders, names in os.walk(start, followlinks=True):
            real = Path(folder).resolve()
            if real in visited or (without is not None and real.is_relative_to(without)):
                subfolders.clear()
                continue
            visited.add(real)
            visible = sorted(name for name in subfolders if not name.startswith("."))
            subfolders[:] = [name for name in visible if not os.path.islink(os.path.join(folder, name))]
            starts += [Path(folder, name) for name in visible if name not in subfolders]
            files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda path: (path.parent.parts, path.name))


def cannot_write(path: Path, error: OSError, folder: bool = False) -> TskdError:
    """Return the error that says why a file, or a `folder`, cannot be written, and what to do."""
    above = [*([path] if folder else []), *path.parents]
    if file := next((each for each in above if os.path.isfile(each)), None):
        return TskdError(f"{file}: expected a folder to write to, found a file. Choose another name, or remove it")
    return TskdError(f"{path}: cannot write it ({error}). Free disk space, or choose another folder")


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: yield a draft path with the same endings, which replaces `path` at the end of the block.

    A reader sees the old file or the new one, and after an error no file but the old one is there. The folder is made
    if needed.

    Raises:
        TskdError: when the file cannot be written.
    """
    path = Path(path)
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder as a whole: yield the path of a draft, which takes the place of `path` at the end of the block.

    What processes that were killed here have left behind is removed. Only one process may write a folder at a time.

    Raises:
        TskdError: when it cannot be written.
    """
    path = Path(path)
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".draft-*-{path.name}"):
            shutil.rmtree(left)
        yield draft
        if path.is_dir():
            old = path.with_name(f".draft-old-{path.name}")
            path.rename(old)
            draft.rename(path)
            shutil.rmtree(old)
        else:
            draft.rename(path)
    except OSError as error:
        raise cannot_write(path, error, folder=True) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_drafts(folder: str | os.PathLike[str]) -> None:
    """Remove what writers that were killed have left in a folder that no other process writes to."""
    for draft in Path(folder).glob(".draft-*"):
        if draft.is_file():
            draft.unlink()


_LOCKS: dict[str, FileLock] = {}  # those that this process holds, by file


def lock_folder(folder: str | os.PathLike[str], part: str = "") -> None:
    """Claim a run's folder for this process until it ends, however it ends.

    The lock is the system's, on the file `.lock`, which says host and process for the message. Processes that this one
    forks do not hold it: a loader that outlives its killed parent by seconds must not keep the folder claimed. Where
    there is no such lock (some network drives) nothing is claimed.

    Args:
        folder: made if needed.
        part: what of the folder is claimed, where several processes share the work; "" for all of it.

    Raises:
        TskdError: another process has it.
    """
    from filelock import FileLock, Timeout  # a second, which only a run pays

    path = Path(folder).resolve() / f".lock{part}"
    if (held := _LOCKS.get(str(path))) and held.is_locked:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise cannot_write(path, error) from error
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        holder = ""
        with suppress(OSError):  # Windows lets nobody else read it
            holder = path.read_text(encoding="utf-8", errors="replace")[:300]
        raise TskdError(
            f"{path.parent}: expected no other run in this folder, found {holder or 'another process'}. Wait for it, "
            "end it, or choose another output_dir."
        ) from error
    except OSError:  # a file system without locks
        return
    with suppress(OSError):
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    _LOCKS[str(path)] = lock


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike[str], content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write a JSON file atomically; `default` makes something of what JSON does not know, as in `json.dumps`."""
    write_text(path, json.dumps(content, indent=1, default=default) + "\n")
