"""Calls of `tskd distil`, and what its dry runs print."""

import ast
import shlex
from pathlib import Path
from typing import Any

from tskd.cli import main
from tskd.options import command_line


def paper(study: Path, *more: str) -> int:
    return call(study, "--order", "paper", *more)


def call(study: Path, *more: str) -> int:
    places = ["--dataset-dir", str(study), "--teacher", str(study / "teacher"), "--output", str(study / "out")]
    return main(["distil", *places, *more])


def printed(capsys) -> list[dict[str, Any]]:
    """Options of the commands that a dry run has printed: soft labels, distillation, fine-tuning."""
    *lines, _ = capsys.readouterr().out.splitlines()
    return [command_line(shlex.split(line)[4:]) for line in lines[1::2]]


def steps(commands: list[list[str]]) -> list[str]:
    return [command_line(command)["output_dir"].rpartition("/")[2] for command in commands]


def named(capsys) -> dict[str, list[str]]:
    """Name and command of each step that a dry run has printed."""
    *lines, _ = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line)[2:] for line in lines[1::2]]
    return dict(zip([line.removeprefix("# ") for line in lines[::2]], commands, strict=True))


def config_names(arguments):
    return [Path(name).name for name in ast.literal_eval(arguments["config_file"])]
