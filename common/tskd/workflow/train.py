"""`tskd train`: a whole study, from the images to the bundle, through Snakemake."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from tskd.cpus import cpus
from tskd.errors import TskdError
from tskd.visible_gpus import visible
from tskd.workflow.follow import Follower, duration
from tskd.workflow.plan import snakemake
from tskd.workflow.screen import Screen
from tskd.workflow.steps import Step
from tskd.workflow.study import Study

LOOK = 0.5  # seconds between two looks at the steps
PATIENCE = 60.0  # seconds that steps have to end after Ctrl-C


@dataclass(frozen=True)
class Runner:
    """How a study is run.

    Args:
        command: the user's command, which goes on where a run was stopped.
        cores: CPU cores of this machine, all by default.
        arguments: more of Snakemake's, such as `--profile workflow/profiles/slurm`; with a profile or an executor the
            steps run elsewhere, and each imports what it needs itself.
    """

    command: str
    cores: int | None = None
    arguments: Sequence[str] = ()

    @property
    def elsewhere(self) -> bool:
        """Whether the steps run on a cluster."""
        return any(part.split("=")[0] in ("--profile", "--executor", "-e") for part in self.arguments)

    def snakemake(self, study: Study, cores: int) -> list[str]:
        """Return the command of Snakemake for the steps that have to run."""
        gpus = len(visible()) or cores  # without a GPU the cores alone say how many steps run side by side
        local = ["--cores", str(cores), "--resources", f"gpu={gpus}", "--scheduler", "greedy"]
        return [sys.executable, "-m", *snakemake(study), *([] if self.elsewhere else local), *self.arguments]


def run(
    study: Study,
    runner: Runner,
    steps: Sequence[Step],
    estimates: Mapping[str, float],
    environment: Mapping[str, str],
) -> None:
    """Run the steps of a study that have to run, and show how far they are.

    Snakemake and the steps write into `OUTPUT/train.log`.

    Args:
        study: the study.
        runner: how it is run.
        steps: those that have to run, as Snakemake says.
        estimates: path of a step -> seconds it is expected to take.
        environment: of the steps on this machine, beside its own.

    Raises:
        TskdError: when a step fails, with its cause, its log and how to go on; when Snakemake is missing.
        KeyboardInterrupt: after Ctrl-C, when everything has ended and the user was told how to go on.
    """
    output = Path(study.output)
    cores = runner.cores or cpus()
    slots = max(min(cores // study.config.get("threads", 2), max(len(visible()), 1) if visible() else cores), 1)
    with (output / "train.log").open("a") as log:
        screen = Screen(log)
        follower = Follower(list(steps), estimates, slots, time.time())
        before = len(study.steps) - len(follower.steps)
        done = f", {before} of them done before" if before else ""
        screen.line(f"{len(study.steps)} steps{done}; log: {output / 'train.log'}")
        if not follower.steps:
            return
        local = {} if runner.elsewhere else environment
        status = follow_command(runner.snakemake(study, cores), local, log, screen, follower, runner)
    if follower.failed or status != 0:
        raise TskdError(failure(follower, output / "train.log", runner))


def follow_command(
    command: Sequence[str], environment: Mapping[str, str], log: TextIO, screen: Screen, follower: Follower,
    runner: Runner,
) -> int:  # fmt: skip
    """Run a command that makes steps, and show how far they are; return its exit status."""
    log.write(shlex.join(command) + "\n")
    log.flush()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
    )  # fmt: skip
    with _terminate_as_interrupt():
        try:
            while process.poll() is None:
                time.sleep(LOOK)
                _show(screen, follower)
        except KeyboardInterrupt:
            screen.line("stopping ...")
            _stop(process)
            _show(screen, follower)
            screen.line(f"stopped. It goes on from there with: {runner.command}")
            raise
        finally:
            screen.close()
    _show(screen, follower)
    return process.returncode


def _show(screen: Screen, follower: Follower) -> None:
    ended = [(step, history) for step, history in follower.look() if history.state == "finished"]
    for number, (step, history) in enumerate(ended, len(follower.finished) - len(ended) + 1):
        count = f"{number:>{len(str(len(follower.steps)))}}/{len(follower.steps)}"
        screen.line(f"{count} {step.title} ({_where(step.path)}): {duration(history.seconds)}")
    screen.progress(follower)


def _where(path: str) -> str:
    """Return the last parts of a step's path that say what it is about."""
    return "/".join(path.split("/")[-4:])


def failure(follower: Follower, log: Path, runner: Runner) -> str:
    """Return the cause in the first line, where its log is, and how to go on."""
    lines = []
    for step, history in follower.failed:
        lines += [f"{step.title} ({_where(step.path)}): {history.cause}", f"log: {step.log}"]
    if not lines:  # a step that could not begin, or Snakemake itself
        tail = log.read_text(errors="replace").splitlines()
        ours = (line.removeprefix("error: ") for line in reversed(tail) if line.startswith("error: "))
        lines = [next(ours, "Snakemake stopped"), f"log: {log}"]
    return "\n".join([*lines, f"Once that is mended, it goes on from there with: {runner.command}"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End Snakemake and its steps: as Ctrl-C would, then by force."""
    numbers = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM))
    for number in numbers:
        with contextlib.suppress(ProcessLookupError, KeyboardInterrupt):
            os.killpg(process.pid, number) if hasattr(os, "killpg") else process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(PATIENCE / 2)
            return


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Keep a second run out of the same folder; the lock ends with the process, however that ends.

    Raises:
        TskdError: when there is another one.
    """
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".train.lock", blocking=False):
            yield
    except Timeout as error:
        raise TskdError(
            f"{output}: expected no other run of this study, found one that is running. Wait for it, or give this "
            "study another `output`."
        ) from error
