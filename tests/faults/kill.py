"""Kill a training or a generator with SIGKILL at random moments, and inside writes: every restart has to finish.

    python -m tests.faults.kill --kills 50

Each run is a fork of this process, which has imported MONAI. A stage is run to its end once; then it is killed and
started again until it was killed as often as wished, and left alone. The weights of all epochs' ends must then be those
of the uninterrupted run bit for bit, and no file may be torn.
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
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.bundles.conftest import run_configs
from tskd.data import prepare_phantom
from tskd.state import read_tensors

TOY: dict[str, Any] = {
    "image_size": 32, "max_epochs": 4, "iterations_per_epoch": 2, "batch_size": 2, "warmup_steps": 1, "val_interval": 1
}  # fmt: skip
CPU: dict[str, Any] = {"device": "$torch.device('cpu')", "amp_dtype": None}
NETWORK: dict[str, Any] = {"network_def__features": [4, 4, 8, 8, 8, 4], "batch_norm_batches": 1}


def student(folder: Path, data: Path) -> None:
    """Train a small student."""
    run_configs("student_segmentation", "train", "basic_unet", **TOY, **CPU, **NETWORK, keep="best",
                dataset_dir=str(data), output_dir=str(folder), model_dir=str(folder / "models"))  # fmt: skip


def ddpm(folder: Path, data: Path) -> None:
    """Train a small diffusion model."""
    small = {"image_size": 32, "max_epochs": 3, "iterations_per_epoch": 2, "batch_size": 2, "val_interval": 1}
    run_configs("ddpm_synthesis", "train", **small, **CPU, dataset_dir=str(data), output_dir=str(folder),
                model_dir=str(folder / "models"))  # fmt: skip


STAGES: dict[str, Callable[[Path, Path], None]] = {"student": student, "ddpm": ddpm}


def main() -> None:
    """Kill each stage so many times, and print a line a stage."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default=",".join(STAGES))
    options = parser.parse_args()
    for name in options.stages.split(","):
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}: {harass(STAGES[name], Path(folder), options.kills, options.seed)}", flush=True)


def harass(stage: Callable[[Path, Path], None], folder: Path, kills: int, seed: int = 0) -> str:
    """Kill a stage `kills` times over as many runs as it takes; what happened, in a sentence.

    Raises:
        AssertionError: a restart does not finish, a file is torn, or weights differ.
    """
    data = folder / "data"
    prepare_phantom(data, num_patients=4, seed=1, image_size=32, num_slices=4, num_validation=1, num_test=1)
    began = time.monotonic()
    assert _child(stage, folder / "whole", data, None) == 0, _log(folder / "whole")
    length = time.monotonic() - began
    rng, done, runs, writes = random.Random(seed), 0, 0, 0
    while done < kills:
        run = folder / f"run{runs}"
        runs += 1
        for _ in range(min(5, kills - done)):
            in_write = rng.random() < 0.4
            writes += in_write
            when = -rng.randint(1, 12) if in_write else rng.uniform(0, length)
            ended = _child(stage, run, data, when)
            done += ended == -signal.SIGKILL
            assert ended in (0, -signal.SIGKILL), _log(run)
            _refuse_torn(run)
        assert _child(stage, run, data, None) == 0, _log(run)
        _refuse_torn(run)
        _compare(folder / "whole", run)
        shutil.rmtree(run)
    return f"{done} kills in {runs} runs, {writes} of them aimed at writes; weights as without interruption"


def _child(stage: Callable[[Path, Path], None], run: Path, data: Path, when: float | None) -> int:
    """Exit status of a run; killed after `when` seconds, or if negative inside the so-many-th write of a file."""
    run.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            if when is not None and when < 0:
                _die_in_write(int(-when))
            torch.manual_seed(1)
            stage(run, data)
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if when is not None and when >= 0:
        time.sleep(when)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _die_in_write(count: int) -> None:
    """Make the count-th `torch.save` of this process the last: half of its bytes, then SIGKILL."""
    save = torch.save

    def half(content: Any, path: Any, *arguments: Any, **options: Any) -> None:
        nonlocal count
        count -= 1
        save(content, path, *arguments, **options)
        if count == 0:
            with open(path, "r+b") as file:
                file.truncate(Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half  # type: ignore[assignment]


def _refuse_torn(run: Path) -> None:
    """Every file that is no draft can be read to its end."""
    for path in run.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".pt":
            read_tensors(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            widths = {len(row) for row in csv.reader(path.open(newline=""))}
            assert len(widths) <= 1, f"{path}: {widths}"


def _compare(whole: Path, run: Path) -> None:
    """Weights of the last and the best epoch, and those that ship, are the same bit for bit."""
    for name in sorted(path.relative_to(whole) for path in whole.rglob("*.pt")):
        one, other = read_tensors(whole / name), read_tensors(run / name)
        one, other = (item.get("network", item) for item in (one, other))
        assert one.keys() == other.keys(), name
        for key, value in one.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), f"{name}: {key} differs"


def _log(run: Path) -> str:
    return run.with_suffix(".log").read_text(errors="replace")[-6000:]


if __name__ == "__main__":
    main()
