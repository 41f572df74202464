"""What a run was made with."""

from __future__ import annotations

import ast
import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from tskd.files import write_json
from tskd.handlers.provenance import provenance
from tskd.handlers.run_config import config_hash, merged_config, running_parser, used_settings
from tskd.options import command_line, file_list

PACKAGES = ("tskd", "torch", "monai", "pytorch-ignite", "peft", "transformers", "diffusers", "numpy")


def versions() -> dict[str, Any]:
    """Return versions of Python and the packages that matter, and the hardware; no user or host name."""
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
    """Write `versions.json` beside a run's results: versions, hardware, settings, config hash and run time.

    The settings are those that the run has used: the plain values of the config's top level, without folders. Beside
    them stand the data set and the teacher (`tskd.handlers.provenance`).

    It is written when the first epoch begins, so that a run that is refused leaves an earlier one's file as it was.
    `seconds` is there when the run is complete, `seconds_so_far` after each epoch before that; both count the parts of
    a resumed run together, up to the epoch it was resumed from.

    Args:
        output_dir: folder of the run.
        settings: more values to record, which the config does not hold, for example the number of parameters.
    """

    def __init__(self, output_dir: str | Path, settings: dict[str, Any] | None = None) -> None:
        self.path = Path(output_dir) / "versions.json"
        self.settings = settings or {}
        self.parser = running_parser()
        self._made_with: dict[str, Any] = {}
        self._began = 0.0
        self._before: dict[str, Any] = {}
        self._first_epoch = True

    def attach(self, engine: Engine) -> None:
        """Register on the start and the end of the run and of its epochs."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish, "seconds_so_far")
        engine.add_event_handler(Events.COMPLETED, self._finish, "seconds")

    def __call__(self, engine: Engine) -> None:
        """Gathers what the run is made with."""
        used = used_settings(self.parser)
        settings = {**used.pop("fingerprints", {}), **used, **self.settings}
        config = merged_config(self.parser)
        self._made_with = {
            **versions(),
            "settings": _without_folders(settings),
            **provenance(used, self.path.parent),
            "network_keys": network_keys(),
            **_mirrored(self.parser),
            "config": config_files(),
            "config_sha256": config_hash(config) if config else None,
        }
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
        """Return the file of the run's earlier parts, empty where there is none."""
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


def network_keys() -> dict[str, Any]:
    """Return keys of the network that a model needs beside the bundle's configs, in their order.

    They are those of the command line, such as network_def#feature_size, and before them those of a config that is not
    the bundle's, such as a user's overlay, and of the configs behind it.
    """
    options = command_line(sys.argv[1:])
    keys: dict[str, Any] = {}
    configs, overlays = Path(options.get("bundle_root") or ".") / "configs", False
    for file in map(Path, file_list(options.get("config_file", ""))):
        overlays = overlays or file.resolve() != (configs / file.name).resolve()
        if overlays and file.is_file():
            content = ConfigParser.load_config_file(file)
            keys |= {key: value for key, value in content.items() if key.partition("#")[0] == "network_def"}
    return keys | {
        key.replace("::", "#"): _literal(value)
        for key, value in options.items()
        if key.replace("::", "#").startswith("network_def#")
    }


def _mirrored(parser: ConfigParser | None) -> dict[str, list[int]]:
    """Return {"mirrored": axes} along which the training mirrors images (0: x, 1: y); empty without augmentation."""
    augmentation = None if parser is None else parser.ref_resolver.resolved_content.get("augmentation")
    if augmentation is None:
        return {}
    shares = [getattr(augmentation, name, 0.0) for name in ("flip", "flip_y")]
    return {"mirrored": [axis for axis, share in enumerate(shares) if share > 0]}


def config_files() -> list[str]:
    """Return names (no folders) of the config files on the command line, empty outside `monai.bundle run`."""
    return [Path(name).name for name in file_list(command_line(sys.argv[1:]).get("config_file", ""))]


def _without_folders(value: Any) -> Any:
    """Return settings with the name in place of an absolute path, whose folders may tell who ran this and where."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str | Path) and Path(value).is_absolute() else value


def _literal(value: Any) -> Any:
    """Return an override as MONAI's command line reads it: a number or list where it is one, else the text."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (SyntaxError, ValueError):
        return value
