"""Files that are whole or the old ones, and what is in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in one step: a reader sees the old file or the new one. The folder is made if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def write_json(path: str | os.PathLike[str], content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write a JSON file in one step; `default` makes something of what JSON does not know, as in `json.dumps`."""
    write_text(path, json.dumps(content, indent=1, default=default) + "\n")


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
