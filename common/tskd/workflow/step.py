"""Run one step of a study: `python -m MODULE ARGS`, with its log, on a GPU of its own where there are several.

`python -m tskd.workflow.step --name N --path X --output O [--folder F] [--gpu] [--inputs FILE ...] -- MODULE ARGS` is
what Snakemake runs. `X.log` gets all that the command prints; O is the file that Snakemake looks at. Whether the step
has to run is Snakemake's to say. This module only decides whether it goes on in its folder F or begins in an empty one:
it goes on where the log in X.log was begun with the same command, and no input is newer than that.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tskd import progress_file
from tskd.errors import TskdError
from tskd.workflow import warm
from tskd.workflow.gpus import reserve
from tskd.workflow.step_log import command_text, read_history, write_beginning, write_end
from tskd.workflow.steps import hidden

MEMORY = ("out of memory", "DefaultCPUAllocator", "MemoryError", "ALLOC_FAILED")


@dataclass(frozen=True)
class Task:
    """What the command line of this module holds; see there."""

    name: str
    command: tuple[str, ...]
    path: str
    output: Path
    folder: Path | None = None
    gpu: bool = False
    inputs: tuple[Path, ...] = ()

    @property
    def log(self) -> Path:
        """All that the command prints."""
        return Path(self.path + ".log")

    @property
    def goes_on(self) -> bool:
        """Whether the folder holds a part of the same work."""
        history = read_history(self.log)
        return (
            self.folder is not None
            and self.folder.exists()
            and history is not None
            and history.command == command_text(self.command)
            and all(file.stat().st_mtime <= history.first for file in self.inputs)
        )


def run(task: Task) -> None:
    """Run the step.

    Raises:
        TskdError: when the command fails, with its cause; when `folder` holds something that no step made, or `output`
            is not there in the end.
    """
    lock = hidden(task.path, "lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # waits for a step that has outlived its Snakemake
        goes_on = task.goes_on
        if not goes_on:
            _empty(task)
        _execute(task, goes_on)
        if not task.output.is_file():
            raise TskdError(f"{task.name}: expected it to write {task.output}, found no such file\n  log: {task.log}")
        os.utime(task.output)  # it may have been finished before what it was made from was looked at again


def _empty(task: Task) -> None:
    folder = task.folder
    if folder is None or not folder.exists():
        return
    has_files = any(not path.is_dir() for path in folder.rglob("*"))  # Snakemake makes the folder of what is wanted
    if has_files and not task.log.is_file():
        raise TskdError(
            f"{folder}: expected an empty folder or one that an earlier run of the study made, found other files. "
            "Move them away, or give the study another `output`."
        )
    shutil.rmtree(folder)


def _execute(task: Task, goes_on: bool) -> None:
    """Run the command; its log says when it began, and how it ended: finished, stopped, or failed with its cause."""
    progress = hidden(task.path, "progress.json")
    progress.unlink(missing_ok=True)
    environment = {
        **os.environ, "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1",
        progress_file.VARIABLE: str(progress.resolve()),
    }  # fmt: skip
    print(f"{task.name} ...", flush=True)
    chosen: AbstractContextManager[dict[str, str]] = reserve() if task.gpu else nullcontext({})
    state, cause, began = "stopped", "", time.monotonic()
    with task.log.open("a" if goes_on else "w", encoding="utf-8") as log:
        write_beginning(log, task.command)
        try:
            with chosen as device:
                process = warm.start(task.command, log, {**environment, **device})
                try:
                    status = process.wait()
                except BaseException:  # Ctrl-C, or the cluster's signal that the time is over
                    process.terminate()
                    process.wait()
                    raise
            if status != 0:
                state, cause = "failed", explain(status, _last_part(task.log))
                raise TskdError(f"{task.name}: {cause}\n  log: {task.log}")
            state = "finished"
        finally:
            write_end(log, state, time.monotonic() - began, cause)
            progress.unlink(missing_ok=True)
    print(f"{task.name}: {time.monotonic() - began:.0f} s", flush=True)


def _last_part(log: Path) -> str:
    """Return what the command has printed since it was begun last."""
    return log.read_text(encoding="utf-8", errors="replace").rpartition("[tskd] ")[2].partition("\n")[2]


def explain(status: int, log: str) -> str:
    """Return why a command failed, from its status and its log: our message, else the exception, else its last line."""
    lines = [line for line in log.splitlines() if line.strip()]
    ours = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if status < 0:
        name = signal.Signals(-status).name
        text = f"it was ended by {name}"
        return f"{text}, as the system does when memory is short. Lower batch_size" if name == "SIGKILL" else text
    if ours:
        return "\n".join(lines[ours[-1] :]).removeprefix("error: ")
    cause = _first_exception(lines) or next((line for line in reversed(lines) if line[:1].strip()), "")
    cause = cause or f"it ended with status {status}"
    if any(word in cause for word in MEMORY):
        return f"{cause}. Lower batch_size (and raise accumulation_steps), or image_size: `tskd doctor` says what fits"
    return cause


def _first_exception(lines: list[str]) -> str:
    """Of the last exception and those that it was raised from, the one that was there first: MONAI wraps them."""
    heads = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    while len(heads) > 1 and any(word in lines[heads[-1] - 1] for word in ("direct cause of", "During handling of")):
        heads.pop()
    rest = lines[heads[-1] + 1 :] if heads else []
    return next((line for line in rest if line[:1].strip()), "")


def _task(arguments: Sequence[str] | None) -> Task:
    parser = argparse.ArgumentParser(prog="python -m tskd.workflow.step", description="run one step of a study")
    parser.add_argument("--name", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--inputs", type=Path, nargs="*", default=[])
    parser.add_argument("command", nargs="+", metavar="MODULE ARGS")
    values = vars(parser.parse_args(arguments))
    return Task(**{**values, "command": tuple(values["command"]), "inputs": tuple(values["inputs"])})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step; return 0, or 1 after saying why the command failed and where its log is."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(_task(arguments))
    except (TskdError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
