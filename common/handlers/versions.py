"""What a run was made with."""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from common.options import command_line, file_list

PACKAGES = ("tskd", "torch", "monai", "pytorch-ignite", "peft", "transformers", "diffusers", "numpy")


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
    """Writes `versions.json` beside a run's results: versions, hardware, settings, and the run time at the end.

    Args:
        output_dir: folder of the run.
        settings: values to record, for example seed, number of labels and files (of which only the name is written).
    """

    def __init__(self, output_dir: str | Path, settings: dict[str, Any] | None = None) -> None:
        self.path = Path(output_dir) / "versions.json"
        self.settings = settings or {}
        self._began = 0.0

    def attach(self, engine: Engine) -> None:
        """Registers on the start and the end of the run."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def __call__(self, engine: Engine) -> None:
        """Writes the file at the start, so that a killed run has it too."""
        self._began = time.monotonic()
        self._write({})

    def _finish(self, engine: Engine) -> None:
        self._write({"seconds": round(time.monotonic() - self._began, 1), "iterations": engine.state.iteration})

    def _write(self, extra: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {**versions(), "settings": _without_folders(self.settings), "config": config_files(), **extra}
        self.path.write_text(json.dumps(content, indent=2, default=str) + "\n")


def config_files() -> list[str]:
    """Names (no folders) of the config files on the command line, empty outside `monai.bundle run`."""
    return [Path(name).name for name in file_list(command_line(sys.argv[1:]).get("config_file", ""))]


def _without_folders(value: Any) -> Any:
    """Settings with the name in place of an absolute path, whose folders may tell who ran this and where."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str | Path) and Path(value).is_absolute() else value
