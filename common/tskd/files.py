"""Atomic file writes and SHA-256 checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tskd.errors import TskdError


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
        raise TskdError(f"{path}: cannot write it ({error}). Free disk space, or choose another folder") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike[str], content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write a JSON file atomically; `default` makes something of what JSON does not know, as in `json.dumps`."""
    write_text(path, json.dumps(content, indent=1, default=default) + "\n")


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the hexadecimal SHA-256 checksum of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
