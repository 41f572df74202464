"""Kill each training and each generator with SIGKILL at random moments, and inside writes: every restart has to finish.

    python -m tests.faults.kill --kills 50

Each run is a fork of this process, which has imported MONAI. A stage is run to its end once; then it is killed and
started again, some times over in one folder, and left alone. What it has written must then be that of the uninterrupted
run: weights bit for bit, images and soft labels byte for byte; and no file may be torn.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from tests.faults.stages import NEEDS, STAGES, Stage, cohort
from tskd.state import read_tensors

IN_A_FOLDER = 4  # kills before a run is left alone


def main() -> None:
    """Kill the stages so many times in all, and print a line a stage."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default=",".join(STAGES))
    options = parser.parse_args()
    names = options.stages.split(",")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        cohort(data)
        for number, name in enumerate(names):
            share = options.kills // len(names) + (number < options.kills % len(names))
            print(f"{name}: {harass(name, Path(folder), data, share, options.seed)}", flush=True)


def harass(name: str, folder: Path, data: Path, kills: int, seed: int = 0) -> str:
    """Kill a stage `kills` times over as many runs as it takes; what happened, in a sentence.

    Raises:
        AssertionError: a restart does not finish, a file is torn, or what it wrote differs.
    """
    stage = STAGES[name]
    for needed in NEEDS.get(name, ()):
        make_whole(needed, data)
    began = time.monotonic()
    whole = make_whole(name, data)
    length = time.monotonic() - began
    rng, done, runs, writes = random.Random(f"{name} {seed}"), 0, 0, 0
    while done < kills:
        run = folder / f"{name}{runs}"
        runs += 1
        for _ in range(min(IN_A_FOLDER, kills - done)):
            in_write = rng.random() < 0.5
            when = -rng.randint(1, 8) if in_write else rng.uniform(0, length)
            ended = child(stage, run, data, when)
            done += ended == -signal.SIGKILL
            writes += in_write and ended == -signal.SIGKILL
            assert ended in (0, -signal.SIGKILL), f"{when}: {log(run)}"
            refuse_torn(run)
            if rng.random() < 0.3:  # a workflow removes the outputs of a step that was interrupted
                shutil.rmtree(run / "models", ignore_errors=True)
        assert child(stage, run, data) == 0, log(run)
        refuse_torn(run)
        compare(whole, run)
        shutil.rmtree(run)
    return f"{done} kills in {runs} runs, {writes} of them inside writes; the same as without interruption"


def make_whole(name: str, data: Path) -> Path:
    """The folder of a stage's uninterrupted run, made if it is not there, with what it needs."""
    for needed in NEEDS.get(name, ()):
        make_whole(needed, data)
    if not (data / name).is_dir():
        assert child(STAGES[name], data / name, data) == 0, log(data / name)
    return data / name


def child(stage: Stage, run: Path, data: Path, when: float | None = None, output: Path | None = None) -> int:
    """Exit status of a run; killed after `when` seconds, or if negative inside the so-many-th write of a file."""
    pid = os.fork()
    if pid == 0:
        status = 1
        text = os.open(output or run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(text, 1)
        os.dup2(text, 2)
        try:
            if when is not None and when < 0:
                _die_in_write(int(-when))
            torch.set_num_threads(1)  # remakes torch's pool after the fork, which loading threads would do at once
            torch.manual_seed(1)
            stage(run, data)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if when is not None and when >= 0:
        time.sleep(when)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _die_in_write(count: int) -> None:
    """Make the count-th write of this process its last: half of the bytes, then SIGKILL.

    Writes are those of torch, safetensors and Pillow, and what is then moved to its place.
    """

    def last(write: Any, place: Any) -> Any:
        def half(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            target = place(*arguments, **options)
            if not isinstance(target, str | os.PathLike):  # to memory: TensorBoard's images
                return write(*arguments, **options)
            path = Path(target)
            count -= 1
            if count == 0 and path.is_dir():  # a folder that is moved to its place
                path = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
            elif write is not move:
                write(*arguments, **options)
            if count == 0:
                with open(path, "r+b") as file:
                    file.truncate(path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return move(*arguments, **options) if write is move else None

        return half

    def second(first: Any, path: Any, *others: Any, **options: Any) -> Any:
        return path

    move = os.replace
    torch.save = last(torch.save, second)
    safetensors.torch.serialize_file = last(safetensors.torch.serialize_file, second)
    Image.Image.save = last(Image.Image.save, second)  # type: ignore[method-assign]
    os.replace = last(move, lambda source, target: source)


def refuse_torn(run: Path) -> None:
    """Every file that is no draft can be read to its end."""
    for path in run.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(run).parts) or not path.is_file():
            continue
        if path.suffix == ".pt":
            read_tensors(path)
        elif path.suffix == ".safetensors":
            safetensors.torch.load(path.read_bytes())
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            np.asarray(Image.open(path))
        elif path.suffix == ".csv":
            widths = {len(row) for row in csv.reader(path.open(newline=""))}
            assert len(widths) <= 1, f"{path}: {widths}"


def compare(whole: Path, run: Path) -> None:
    """The same files as in the uninterrupted run, with the same weights, images, soft labels, lists and logs."""
    for name in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
        if name.suffix == ".pt":
            one, other = read_tensors(whole / name), read_tensors(run / name)
            for part in {"network", "average"} & one.keys() or {""}:
                ours, theirs = (item.get(part, item) for item in (one, other))
                assert ours.keys() == theirs.keys(), name
                for key, value in ours.items():
                    assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[key])), f"{name}: {key} differs"
        elif name.name == "gradient_shares.csv":  # says of which steps: those of the process that wrote it
            assert (run / name).is_file()
        elif name.suffix in (".png", ".safetensors", ".csv", ".json") and name.name != "versions.json":
            assert (run / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"


def log(run: Path) -> str:
    """The end of what a run has printed."""
    return run.with_suffix(".log").read_text(errors="replace")[-6000:]


if __name__ == "__main__":
    main()
