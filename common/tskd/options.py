"""Check the overrides on the command line of `monai.bundle run` before anything runs."""

from __future__ import annotations

import difflib
import inspect
import pydoc
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.errors import TskdError

RENAMED = {"surest_synthetic": "max_confident_synthetic"}  # former key of the configs -> its name
NONE = "$None"  # MONAI passes over an override that is None, and takes this expression of it
_REFERENCE = re.compile(r"[@%][\w#:]+")
_FLAG = re.compile(r"--|-[a-zA-Z](=|$)")


def check_overrides(arguments: Sequence[str] | None = None) -> None:
    """Refuse an override that names no key of the config files; MONAI would accept it without a word.

    Args:
        arguments: command line after the program's name; None for the one of this process. Does nothing where it is not
            a `monai.bundle run` with a `--config_file`, given here or in an `--args_file`.

    Raises:
        TskdError: listing every unknown key with the keys closest to it, or the values false and null, which would be
            taken for true, None, which would leave the config's value, and values with #, which would be others.
    """
    options = command_line(sys.argv[1:] if arguments is None else arguments)
    if "config_file" not in options:
        return
    import monai.bundle  # here, so that reading a command line costs no second

    config = _merged(options["config_file"])
    if options.get("tracking"):
        config = {**_tracking_keys(options["tracking"]), **config}
    run_options = {*inspect.signature(monai.bundle.run).parameters} - {"override"}
    problems = [
        f"--{key}: {problem}"
        for key in options
        if key not in run_options
        and (problem := unknown_key(key.removeprefix("+").replace("::", "#"), config, _unknown_argument))
    ]
    if problems:
        raise TskdError("unknown override: " + "; ".join(problems))
    texts = [f"--{key} {value}" for key, value in options.items() if value in ("true", "false", "null")]
    if texts:  # MONAI hands them on as text, and a text that is not empty counts as true
        raise TskdError(f"{', '.join(texts)}: expected True, False or '{NONE}', found JSON's word")
    if unset := [f"--{key}" for key, value in options.items() if value == "None" and key not in run_options]:
        raise TskdError(f"{', '.join(unset)}: expected '{NONE}', found None, which MONAI passes over")
    check_hashes({key: value for key, value in options.items() if key not in run_options})


def check_hashes(overrides: Mapping[str, Any]) -> None:
    """Refuse a # in a value, which MONAI reads as ::, except in references (@group#key) and lists of keys.

    Args:
        overrides: key -> value, as text or parsed.

    Raises:
        TskdError: naming each of them.
    """
    texts = {key: str(value) for key, value in overrides.items() if key.split("#")[-1] != "may_differ"}
    if hashes := [f"--{key} {text}" for key, text in texts.items() if "#" in _REFERENCE.sub("", text)]:
        raise TskdError(f"{', '.join(hashes)}: expected no #, which MONAI reads as ::. Rename the folder or file")


def command_line(arguments: Sequence[str]) -> dict[str, Any]:
    """Return option -> value as `fire`, which parses MONAI's command lines, tells them apart, with an `--args_file`'s.

    Args:
        arguments: `--key value`, `--key=value`, or a flag without a value, which has the value "".
    """
    options: dict[str, Any] = {}
    for position, token in enumerate(arguments):
        if not _FLAG.match(token):
            continue
        key, _, value = token.lstrip("-").partition("=")
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        options[key.replace("-", "_")] = value or ("" if "=" in token or _FLAG.match(following) else following)
    if "args_file" in options:
        from monai.bundle import ConfigParser

        options = {**ConfigParser.load_config_files(options["args_file"]), **options}
    return options


def with_none(arguments: Sequence[str]) -> list[str]:
    """Return a command line on which every value None is written as MONAI takes it."""
    return [NONE if token == "None" else re.sub(r"^(--[^=]+=)None$", rf"\g<1>{NONE}", token) for token in arguments]


def file_list(value: str | Sequence[str]) -> list[str]:
    """Return the files of `--config_file`: one, several with commas between, or a list as Python or fire writes it."""
    if not isinstance(value, str):
        return list(value)
    return [name.strip(" \t'\"") for name in value.strip("[]() ").split(",") if name.strip()]


def _merged(value: str | Sequence[str]) -> dict[str, Any]:
    from monai.bundle import ConfigParser

    files = file_list(value)
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise TskdError(f"--config_file: expected JSON or YAML files, not found: {', '.join(missing)}")
    return ConfigParser.load_config_files(files)


def _tracking_keys(tracking: str) -> dict[str, Any]:
    """Return the keys that MONAI's experiment tracking adds to the config, such as `experiment_name`."""
    from monai.bundle import ConfigParser
    from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

    settings: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS.get(tracking) or ConfigParser.load_config_files(tracking)
    return settings["configs"]


def refuse_unknown(keys: Iterable[str], config: Any, where: str) -> None:
    """Refuse keys that lead nowhere in a config, each with the names closest to it, before MONAI does with a KeyError.

    Raises:
        TskdError: listing them.
    """
    if problems := [f"{key}: {problem}" for key in keys if (problem := unknown_key(key, config))]:
        raise TskdError(f"{where}: unknown key {'; '.join(problems)}")


def unknown_key(key: str, config: Any, argument: Callable[[str, Mapping[str, Any]], str] | None = None) -> str:
    """Return "" if `key` leads to an item of `config` or to an argument of a component, else what is wrong.

    Args:
        key: with `#` between its levels.
        config: merged, nothing resolved.
        argument: says what is wrong with an argument, by its name and its component; None takes any.
    """
    known = ""
    for part in key.split("#"):
        if isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, dict) and part in config:
            config = config[part]
        elif isinstance(config, dict) and "_target_" in config:
            return argument(part, config) if argument else ""
        elif part in RENAMED:
            return f"this key is now called {RENAMED[part]}"
        else:
            names = [name for name in config if not name.startswith("_desc_")] if isinstance(config, dict) else []
            close = difflib.get_close_matches(part, names, n=3, cutoff=0.5) or sorted(names)[:8]
            where = f" in {known[1:]}" if known else ""
            return f"no such key{where}; close names: {', '.join(close) or 'none'}"
        known += f"#{part}"
    return ""


def _unknown_argument(name: str, component: Mapping[str, Any]) -> str:
    """Return what is wrong with an argument that a component of the config does not name; "" where its class takes it.

    The class is imported; where that fails, its error is left to the run.
    """
    from monai.bundle import ComponentLocator, ConfigComponent

    try:
        target = ConfigComponent(config=dict(component), locator=ComponentLocator()).resolve_module_name()
        located: Any = pydoc.locate(target) if isinstance(target, str) else target
        known = inspect.signature(located).parameters
    except Exception:
        return ""
    if name in known or name.startswith("_") or any(item.kind is item.VAR_KEYWORD for item in known.values()):
        return ""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:8]
    return f"no such argument of {component['_target_']}; close names: {', '.join(close)}"
