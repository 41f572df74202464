"""Overrides on the command line of `monai.bundle run`, checked before anything runs."""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ConfigParser

from common.errors import TskdError


def check_overrides(arguments: Sequence[str] | None = None) -> None:
    """Refuses an override that names no key of the config files; MONAI would accept it without a word.

    Args:
        arguments: command line after the program's name; None for the one of this process. Does nothing where it is not a
            `monai.bundle run` with a `--config_file`.

    Raises:
        TskdError: listing every unknown key with the keys closest to it.
    """
    options = _options(sys.argv[1:] if arguments is None else arguments)
    if "config_file" not in options:
        return
    config = _merged(options["config_file"])
    own = set(inspect.signature(monai.bundle.run).parameters)
    problems = [
        f"--{key}: {problem}"
        for key in options
        if key not in own and (problem := _unknown(key.replace("::", "#"), config))
    ]
    if problems:
        raise TskdError("unknown override: " + "; ".join(problems))


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """`--key value` and `--key=value` pairs; a flag without a value has the value ''."""
    options: dict[str, str] = {}
    for position, token in enumerate(arguments):
        if not token.startswith("--"):
            continue
        key, _, value = token[2:].partition("=")
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        options[key] = value or ("" if following.startswith("--") else following)
    return options


def _merged(value: str) -> dict[str, Any]:
    files = ast.literal_eval(value) if value.startswith(("[", "(")) else [value]
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise TskdError(f"--config_file: expected JSON or YAML files, not found: {', '.join(missing)}")
    parser = ConfigParser()
    parser.read_config(files)
    return parser.get()


def _unknown(key: str, config: Any) -> str:
    """Empty if `key` leads to an item of `config` or to an argument of a component, else what is wrong."""
    known = ""
    for part in key.split("#"):
        if isinstance(config, list) and part.lstrip("-").isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, dict) and part in config:
            config = config[part]
        elif isinstance(config, dict) and "_target_" in config:
            return ""
        else:
            names = list(config) if isinstance(config, dict) else []
            close = difflib.get_close_matches(part, names, n=3, cutoff=0.5) or sorted(names)[:8]
            where = f" in {known[1:]}" if known else ""
            return f"no such key{where}; close names: {', '.join(close) or 'none'}"
        known += f"#{part}"
    return ""
