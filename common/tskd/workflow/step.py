"""Run one step of a study: a command with its log, and a memory of what its folder was made from.

`python -m tskd.workflow.step --name N --path X [--folder F] [--gpu] [--inputs FILE ...] -- MODULE ARGS` runs
`python -m MODULE ARGS`, with `--gpu` on a GPU of its own where there are several. `X.log` gets all it prints, and
`X.done`, written last, is the file that Snakemake looks at.

Snakemake knows that a step has to run, but not whether what it finds in the folder is a part of the same work: it
removes a step's outputs first, and forgets what an interrupted one was made from. So one small hidden file
beside the folder (`Record`) holds a hash of the command and the inputs. The same hash continues in the folder (a bundle
run goes on from its last epoch) or, where it was finished, is not run again; another one starts in an empty folder,
with a new id in `X.done`, so that whatever was made from the older folder is made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tskd import progress_file
from tskd.errors import TskdError
from tskd.files import sha256, write_text
from tskd.workflow import warm
from tskd.workflow.gpus import reserve
from tskd.workflow.steps import Record, hidden, read_record, write_record

ROOT = str(Path(__file__).resolve().parents[3])
MEMORY = ("out of memory", "DefaultCPUAllocator", "MemoryError", "ALLOC_FAILED")


@dataclass(frozen=True)
class Task:
    """What the command line of this module holds; see there."""

    name: str
    command: tuple[str, ...]
    path: str
    folder: Path | None = None
    gpu: bool = False
    inputs: tuple[Path, ...] = ()

    @property
    def log(self) -> Path:
        """All that the command prints."""
        return Path(self.path + ".log")

    @property
    def done(self) -> Path:
        """The file that says that the step is finished."""
        return Path(self.path + ".done")

    @property
    def made_from(self) -> str:
        """Hash of the command (wherever the clone lies) and of the inputs' content."""
        parts = [part.replace(ROOT, "") for part in self.command] + [sha256(path) for path in self.inputs]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def run(task: Task) -> bool:
    """Run the step and write its `done` file; return whether there was something to run.

    Raises:
        TskdError: as `make`.
    """
    made = make(task)
    record = read_record(task.path)
    assert record is not None
    write_text(task.done, f"{record.id}\n")
    return made


def make(task: Task) -> bool:
    """Run the command unless its folder is finished; return whether it ran.

    Raises:
        TskdError: when the command fails, with its cause; when `folder` holds something that no step made.
    """
    lock = hidden(task.path, "lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # waits for a step that has outlived its Snakemake
        before, made_from = read_record(task.path), task.made_from
        kept = task.folder is not None and task.folder.exists()
        same = before is not None and before.made_from == made_from and (kept or task.folder is None)
        if same and before is not None and before.state == "finished" and task.folder is not None:
            return False
        if not same:
            _empty(task.folder, known=before is not None)
        earlier = before if same and before is not None else Record(uuid.uuid4().hex, made_from)
        _execute(task, earlier, resumed=same)
    return True


def _empty(folder: Path | None, known: bool) -> None:
    if folder is None or not folder.exists():
        return
    if not known and any(folder.iterdir()):
        raise TskdError(
            f"{folder}: expected an empty folder or one that an earlier run of the study made, found other files. "
            "Move them away, or give the study another `output`."
        )
    shutil.rmtree(folder)


def _execute(task: Task, record: Record, resumed: bool) -> None:
    """Run the command with a record of how it goes: running, then finished, stopped or failed with its cause."""
    progress = hidden(task.path, "progress.json")
    progress.unlink(missing_ok=True)
    environment = {
        **os.environ, "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1",
        progress_file.VARIABLE: str(progress.resolve()),
    }  # fmt: skip
    before, began = record.seconds, time.monotonic()
    record = record.at("running", before)
    write_record(task.path, record)
    print(f"{task.name} ...", flush=True)
    chosen: AbstractContextManager[dict[str, str]] = reserve() if task.gpu else nullcontext({})
    state, cause = "stopped", ""
    try:
        with task.log.open("a" if resumed else "w") as log, chosen as device:
            log.write(f"{' '.join([sys.executable, '-m', *task.command])}\n")
            log.flush()
            process = warm.start(task.command, log, {**environment, **device})
            try:
                status = process.wait()
            except BaseException:  # Ctrl-C, or the cluster's signal that the time is over
                process.terminate()
                process.wait()
                raise
        if status != 0:
            state, cause = "failed", explain(status, task.log.read_text(errors="replace"))
            raise TskdError(f"{task.name}: {cause}\n  log: {task.log}")
        state = "finished"
    finally:
        write_record(task.path, record.at(state, before + time.monotonic() - began, cause))
        progress.unlink(missing_ok=True)
    print(f"{task.name}: {time.monotonic() - began:.0f} s", flush=True)


def explain(status: int, log: str) -> str:
    """Why a command failed, from its status and its log: our own message, else the exception, else its last line."""
    lines = [line for line in log.splitlines() if line.strip()]
    ours = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if status < 0:
        name = signal.Signals(-status).name
        text = f"it was ended by {name}"
        return f"{text}, as the system does when memory is short. Lower batch_size" if name == "SIGKILL" else text
    if ours:
        return "\n".join(lines[ours[-1] :]).removeprefix("error: ")
    found = _first_exception(lines) or next((line for line in reversed(lines) if line[:1].strip()), "")
    found = found or f"it ended with status {status}"
    if any(word in found for word in MEMORY):
        return f"{found}. Lower batch_size (and raise accumulation_steps), or image_size: `tskd doctor` says what fits"
    return found


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
