"""Texts of the command line as values."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tskd.errors import TskdError

Texts = Annotated[tuple[str, ...], Parameter(show_default=False)]
Paths = Annotated[tuple[Path, ...], Parameter(show_default=False)]
Flag = Annotated[bool, Parameter(show_default=False)]
KeyValues = Annotated[tuple[str, ...], Parameter("--set", show_default=False)]


def key_values(texts: Iterable[str]) -> dict[str, str]:
    """Split texts "KEY=VALUE" at the first equals sign.

    Raises:
        TskdError: a text without a key or without an equals sign.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise TskdError(f"expected KEY=VALUE, found {text!r}")
        pairs[key] = value
    return pairs


def settings(texts: Iterable[str]) -> dict[str, Any]:
    """Split texts "KEY=VALUE" and read each value as `monai.bundle run` does: Python's, JSON's, or text."""
    return {key: _value(text) for key, text in key_values(texts).items()}


def _value(text: str) -> Any:
    for read in (ast.literal_eval, json.loads):
        with suppress(ValueError, SyntaxError):
            return read(text)
    return text


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def names(text: str) -> list[str]:
    """Split names with commas between them.

    Raises:
        ValueError: an empty name, or one that is there twice.
    """
    split = [name.strip() for name in text.split(",")]
    if not all(split) or len(set(split)) < len(split):
        raise ValueError(f"expected different names with commas between them, found {text!r}")
    return split
