"""One step of a study: a command with its log, its bars and a memory of what it was made from.

`python -m tskd.workflow.step --name N --state S --log L --done D [--folder F] [--gpu] [--inputs FILE ...] -- MODULE
ARGS` runs `python -m MODULE ARGS`, with `--gpu` on a GPU of its own where there are several.
`S` remembers the command and the hashes of the inputs: the same ones continue in the
folder `F` (a bundle run goes on from its last epoch) or, where they were finished, are not run again; other ones start
in an empty folder. `D` is written last and holds an id that is new whenever the step started anew, so that whatever was
made from an older `F` is made again.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tskd.errors import TskdError
from tskd.files import sha256, write_json
from tskd.workflow.gpus import reserve

TAIL = 15  # lines of the log that a failing step shows
ROOT = str(Path(__file__).resolve().parents[3])


@dataclass(frozen=True)
class Task:
    """What the command line of this module holds; see there."""

    name: str
    command: tuple[str, ...]
    state: Path
    log: Path
    done: Path
    folder: Path | None = None
    gpu: bool = False
    inputs: tuple[Path, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What an earlier result must share to be this one: the command (wherever the clone lies) and the inputs."""
        return {
            "command": [part.replace(ROOT, "") for part in self.command],
            "inputs": [sha256(path) for path in self.inputs],
        }


def run(task: Task) -> bool:
    """Runs the command unless it was finished before, and returns whether it ran.

    Raises:
        TskdError: when the command fails, with the end of its log; when `folder` holds something that no step made.
    """
    task.state.parent.mkdir(parents=True, exist_ok=True)
    with task.state.with_name(f".{task.state.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for a run that has outlived its Snakemake
        return _run(task)


def _run(task: Task) -> bool:
    before = json.loads(task.state.read_text()) if task.state.is_file() else {}
    same = before.get("identity") == task.identity
    if not same:
        _empty(task.folder, known=bool(before))
    state = {"id": before["id"] if same else uuid.uuid4().hex, "identity": task.identity}
    finished = same and before["finished"]
    if not finished:
        write_json(task.state, {**state, "finished": False})
        _execute(task, resumed=same)
        write_json(task.state, {**state, "finished": True})
    task.done.parent.mkdir(parents=True, exist_ok=True)
    task.done.write_text(f"{state['id']}\n")
    return not finished


def _empty(folder: Path | None, known: bool) -> None:
    if folder is None or not folder.exists():
        return
    if not known and any(folder.iterdir()):
        raise TskdError(
            f"{folder}: expected an empty folder or one that an earlier run of the study made, found other files. "
            "Move them away, or give the study another `output`."
        )
    shutil.rmtree(folder)


def _execute(task: Task, resumed: bool) -> None:
    began = time.monotonic()
    print(f"{task.name} ...", end="" if sys.stdout.isatty() else "\n", flush=True)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1"}
    task.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", *task.command]
    chosen: AbstractContextManager[dict[str, str]] = reserve() if task.gpu else nullcontext({})
    with task.log.open("a" if resumed else "w") as log, chosen as device:
        log.write(" ".join(command) + "\n")
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.PIPE, env={**environment, **device})
        try:
            _pass_on_bars(process, log)
        except BaseException:  # Ctrl-C, or the cluster's signal that the time is over
            process.terminate()
            raise
        finally:
            status = process.wait()
    if status != 0:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"failed with status {status}"
        hint = " (out of memory?)" if status == -signal.SIGKILL else ""
        end = "".join(task.log.read_text().splitlines(True)[-TAIL:])
        raise TskdError(f"{task.name} {how}{hint}; the end of {task.log}:\n{end}")
    print(f"{chr(13) if sys.stdout.isatty() else ''}{task.name}: {time.monotonic() - began:.0f} s", flush=True)


def _pass_on_bars(process: subprocess.Popen[bytes], log: TextIO) -> None:
    """Shows the progress bars of the process's standard error on a terminal; everything else goes to the log.

    What ends with a new line is logged even where it begins with a bar: it may be the message of an error.
    """
    assert process.stderr is not None
    line, byte = b"", b"-"
    while byte:
        byte = process.stderr.read(1)
        line += byte
        if byte and byte not in b"\r\n":
            continue
        text, line = line.decode(errors="replace"), b""
        if "%|" not in text or byte != b"\r":
            log.write(text)
            log.flush()
        if "%|" in text and sys.stderr.isatty():
            print(f"\r{text.strip()}", end="", file=sys.stderr, flush=True)


def _task(arguments: Sequence[str] | None) -> Task:
    parser = argparse.ArgumentParser(prog="python -m tskd.workflow.step", description="run one step of a study")
    parser.add_argument("--name", required=True)
    for option in ("--state", "--log", "--done"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--inputs", type=Path, nargs="*", default=[])
    parser.add_argument("command", nargs="+", metavar="MODULE ARGS")
    values = vars(parser.parse_args(arguments))
    return Task(**{**values, "command": tuple(values["command"]), "inputs": tuple(values["inputs"])})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the step; returns 0, or 1 after printing the end of the log of the command that failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(_task(arguments))
    except (TskdError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
