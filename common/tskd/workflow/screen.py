"""What a run shows: one line a step, and a bar on a terminal or a line a minute elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from tskd.workflow.follow import Follower, Running, duration

EVERY = 60.0  # seconds between two lines where there is no terminal
BAR = 20  # characters


class Screen:
    """Prints the progress of a study, and keeps a copy of each line in the log.

    Args:
        log: the run's log, open for writing.
        stream: where it is shown.
    """

    def __init__(self, log: TextIO, stream: TextIO | None = None) -> None:
        self.log, self.stream = log, stream or sys.stdout
        self._drawn, self._last = "", time.monotonic()

    def line(self, text: str = "") -> None:
        """Print text that stays."""
        self._wipe()
        print(text, file=self.stream, flush=True)
        print(f"[tskd] {text}", file=self.log, flush=True)

    def progress(self, follower: Follower) -> None:
        """Show how far the running steps and the whole are."""
        now = time.time()
        running = follower.running(now)
        if not running:
            return
        left = follower.left(now)
        whole = f"all {len(follower.steps)} steps: {'time left unknown yet' if left is None else _left(left)}"
        if self.stream.isatty():
            steps = " | ".join(f"{each.step.title} {_bar(each)}" for each in running)
            self._draw(f"{steps} | {whole}")
        if time.monotonic() - self._last > EVERY:
            self._last = time.monotonic()
            steps = "; ".join(f"{each.step.title}: {_share(each)}" for each in running)
            text = f"  {time.strftime('%H:%M')} {steps}; {whole}"
            print(f"[tskd] {text}", file=self.log, flush=True)
            if not self.stream.isatty():
                print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        self._wipe()

    def _draw(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        self.stream.write("\r" + text.ljust(len(self._drawn)))
        self.stream.flush()
        self._drawn = text

    def _wipe(self) -> None:
        if self._drawn:
            self.stream.write("\r" + " " * len(self._drawn) + "\r")
            self._drawn = ""


def _bar(running: Running) -> str:
    if running.share is None:
        return _share(running)
    full = round(BAR * running.share)
    return f"[{'#' * full}{'.' * (BAR - full)}] {_share(running)}"


def _share(running: Running) -> str:
    parts = [] if running.share is None else [f"{running.share:.0%}"]
    parts += [] if running.left is None else [_left(running.left)]
    return ", ".join(parts) or "running"


def _left(seconds: float) -> str:
    return f"{duration(seconds)} left"
