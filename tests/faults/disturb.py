"""What goes wrong around a training: read-only output, an image that vanishes, a killed loader, a second run.

    python -m tests.faults.disturb

Each ends in one line of ours and leaves the last checkpoint whole; the training then goes on to the weights of an
undisturbed one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.disk import fill, small_disk
from tests.faults.kill import child, compare, log, make_whole, refuse_torn
from tests.faults.stages import STUDENT, cohort, images, student, student_training
from tskd.handlers import Checkpointing

EPOCH = 2  # after which it happens


def main() -> None:
    """Print a line for each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        cohort(data)
        whole = make_whole("student", data)
        for title, disturbance in DISTURBANCES.items():
            print(f"{title}: {disturbance(folder / title.replace(' ', '_'), data, whole)}", flush=True)


def full_disk(folder: Path, data: Path, whole: Path) -> str:
    """The disk is full while the training writes."""
    try:
        return fill("student", folder, data, (0.5,))
    except PermissionError as error:
        return f"not tried: {error}"


def read_only(folder: Path, data: Path, whole: Path) -> str:
    """The folder is on a drive that is mounted read-only."""
    try:
        with small_disk(folder, 1 << 26):
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            message = _refused(student, folder / "run", data, folder.with_suffix(".log"))
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
            assert child(student, folder / "run", data, None, folder.with_suffix(".log")) == 0
            compare(whole, folder / "run")
            return message
    except PermissionError as error:
        return f"not tried: {error}"


def vanished(folder: Path, data: Path, whole: Path) -> str:
    """An image is gone after some epochs; it is put back."""
    own = folder / "data"
    shutil.copytree(data, own, ignore=shutil.ignore_patterns("student"))
    listed = json.loads((own / "dataset.json").read_text())["training"]
    gone = [(own / entry["image"], (own / entry["image"]).read_bytes()) for entry in listed]

    def remove() -> None:
        for path, _ in gone:
            path.unlink()

    message = _refused(_after_epoch(remove, cache_rate=0.0), folder / "run", own)
    _whole_checkpoint(folder / "run")
    for path, content in gone:
        path.write_bytes(content)
    assert child(_training(cache_rate=0.0), folder / "run", own) == 0, log(folder / "run")
    compare(whole, folder / "run")
    return message


def killed_loader(folder: Path, data: Path, whole: Path) -> str:
    """The system ends a loading process, as it does where the memory is full."""

    def kill() -> None:
        tasks = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        os.kill(int(tasks[-1]), signal.SIGKILL)
        time.sleep(30)  # until torch hears of it

    message = _refused(_in_epoch(kill, num_workers=1, cache_rate=0.0), folder / "run", data)
    _whole_checkpoint(folder / "run")
    assert child(_training(num_workers=1, cache_rate=0.0), folder / "run", data) == 0, log(folder / "run")
    compare(whole, folder / "run")
    return message


def second_run(folder: Path, data: Path, whole: Path) -> str:
    """Another training in the same folder while one is at it."""
    return _second(student, "checkpoints/last.pt", folder, data, whole)


def second_generator(folder: Path, data: Path, whole: Path) -> str:
    """Another generator in the same folder while one is at it."""
    return _second(images, "synthetic/sampling.json", folder, data, make_whole("images", data))


def _second(stage: Callable[[Path, Path], None], begun: str, folder: Path, data: Path, whole: Path) -> str:
    folder.mkdir()
    run = folder / "run"
    first = os.fork()
    if first == 0:
        os._exit(child(stage, run, data, None, folder / "first.log"))
    while not (run / begun).is_file():
        time.sleep(0.01)
    (holder,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    os.kill(int(holder), signal.SIGSTOP)
    message = _refused(stage, run, data)
    assert f"process {holder} on {socket.gethostname()}" in message, message
    os.kill(int(holder), signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0, (folder / "first.log").read_text()
    compare(whole, run)
    return message.replace(f"process {holder} on {socket.gethostname()}", "process P on HOST")


def _refused(stage: Callable[[Path, Path], None], run: Path, data: Path, output: Path | None = None) -> str:
    """The line that a run ends in, without folders."""
    if output is None:
        run.parent.mkdir(exist_ok=True)
    status = child(stage, run, data, None, output)
    text = output.read_text() if output else log(run)
    last = text.strip().rpartition("\n")[2]
    assert status == 1, text
    assert last.startswith("error: "), text
    assert "Traceback" not in text, text
    return last.replace(f"{run}/", "").replace(f"{run.parent}/", "")


def _whole_checkpoint(run: Path) -> None:
    assert (run / "checkpoints/last.pt").is_file()
    refuse_torn(run)


def _training(**options: Any) -> Callable[[Path, Path], None]:
    return lambda run, data: student_training(run, data, **{**STUDENT, **options})


def _after_epoch(action: Callable[[], None], **options: Any) -> Callable[[Path, Path], None]:
    """The training, with something that happens once the checkpoint of an epoch is there."""

    def train(run: Path, data: Path) -> None:
        save = Checkpointing.__call__

        def saved(self: Checkpointing, engine: Any) -> None:
            save(self, engine)
            if engine.state.epoch == EPOCH:
                action()

        Checkpointing.__call__ = saved  # type: ignore[method-assign]
        _training(**options)(run, data)

    return train


def _in_epoch(action: Callable[[], None], **options: Any) -> Callable[[Path, Path], None]:
    """The training, with something that happens while a batch of the epoch after is at work."""

    def train(run: Path, data: Path) -> None:
        from tskd.distillation import AugmentedBatch

        prepare = AugmentedBatch.__call__

        def prepared(self: AugmentedBatch, *arguments: Any, **others: Any) -> Any:
            if (run / "checkpoints/best.pt").is_file():
                action()
            return prepare(self, *arguments, **others)

        AugmentedBatch.__call__ = prepared  # type: ignore[method-assign]
        _training(**options)(run, data)

    return train


DISTURBANCES: dict[str, Callable[[Path, Path, Path], str]] = {
    "full disk": full_disk, "read-only folder": read_only, "vanished image": vanished, "killed loader": killed_loader,
    "second run": second_run, "second generator": second_generator,
}  # fmt: skip


if __name__ == "__main__":
    main()
