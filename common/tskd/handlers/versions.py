"""What a run was made with."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import monai.bundle
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from tskd.files import write_json
from tskd.options import command_line, file_list

PACKAGES = ("tskd", "torch", "monai", "pytorch-ignite", "peft", "transformers", "diffusers", "numpy")
_PLACES = ("_dir", "_file", "_files", "_root")  # endings of keys that say where something is


def versions() -> dict[str, Any]:
    """Versions of Python and the packages that matter, and the hardware; no user or host name."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return {
        "python": platform.python_version(),
        "packages": installed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
    }


class WriteVersions:
    """Writes `versions.json` beside a run's results: versions, hardware, settings, config hash and run time.

    It is written when the first epoch begins, so that a run that is refused leaves an earlier one's file as it was.
    `seconds` is there when the run is complete, `seconds_so_far` after each epoch before that; both count the parts of
    a resumed run together, up to the epoch it was resumed from.

    Args:
        output_dir: folder of the run.
        settings: values to record, for example seed, number of labels and files (of which only the name is written).
    """

    def __init__(self, output_dir: str | Path, settings: dict[str, Any] | None = None) -> None:
        self.path = Path(output_dir) / "versions.json"
        self.settings = settings or {}
        self._made_with: dict[str, Any] = {}
        self._began = 0.0
        self._before: dict[str, Any] = {}
        self._first_epoch = True

    def attach(self, engine: Engine) -> None:
        """Registers on the start and the end of the run and of its epochs."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish, "seconds_so_far")
        engine.add_event_handler(Events.COMPLETED, self._finish, "seconds")

    def __call__(self, engine: Engine) -> None:
        """Gathers what the run is made with."""
        about = {"settings": _without_folders(self.settings), "config": config_files(), "config_sha256": config_hash()}
        self._made_with = {**versions(), **about}
        self._began, self._first_epoch = time.monotonic(), True
        known = self._known()
        self._before = {key: known[key] for key in ("seconds", "seconds_so_far", "iterations") if key in known}

    def _begin(self, engine: Engine) -> None:
        """In the first epoch, not on STARTED: by then a checkpoint is loaded or refused, in any order of handlers."""
        if self._first_epoch:
            self._before = {} if engine.state.epoch == 1 else self._before
            self._write(self._before)
        self._first_epoch = False

    def _known(self) -> dict[str, Any]:
        """The file of the run's earlier parts, empty where there is none."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _finish(self, engine: Engine, name: str) -> None:
        before = self._before.get("seconds", self._before.get("seconds_so_far", 0))
        spent = round(before + time.monotonic() - self._began, 1)
        self._write({name: spent, "iterations": engine.state.iteration})

    def _write(self, extra: dict[str, Any]) -> None:
        write_json(self.path, {**self._made_with, **extra}, default=str)


def config_files() -> list[str]:
    """Names (no folders) of the config files on the command line, empty outside `monai.bundle run`."""
    return [Path(name).name for name in file_list(command_line(sys.argv[1:]).get("config_file", ""))]


def config_hash() -> str | None:
    """sha256 of the config that this `monai.bundle run` was started with; None outside of one.

    The config files are merged, the overrides of the command line applied, and every path (the value of a key that ends
    in `_dir`, `_file`, `_files` or `_root`, and text with a slash that is no expression) replaced by "path"; then the
    JSON text with sorted keys is hashed. So runs of one hash had the same settings, wherever their files were; that the
    data and weights were the same it does not say.
    """
    options = command_line(sys.argv[1:])
    if "config_file" not in options:
        return None
    parser = ConfigParser()
    parser.read_config(file_list(options["config_file"]))
    own = inspect.signature(monai.bundle.run).parameters
    parser.update({key: _literal(value) for key, value in options.items() if key not in own})
    text = json.dumps(_path_free(parser.get()), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _literal(value: Any) -> Any:
    """An override as MONAI's command line reads it: a number or list where it is one, else the text."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (SyntaxError, ValueError):
        return value


def _path_free(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _path_free(item, name) for name, item in value.items()}
    if key.endswith(_PLACES):
        return "path"
    if isinstance(value, list | tuple):
        return [_path_free(item) for item in value]
    is_path = isinstance(value, str) and "/" in value.replace("\\", "/") and not value.startswith(("$", "@", "%"))
    return "path" if is_path else value


def _without_folders(value: Any) -> Any:
    """Settings with the name in place of an absolute path, whose folders may tell who ran this and where."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str | Path) and Path(value).is_absolute() else value
