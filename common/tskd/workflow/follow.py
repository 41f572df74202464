"""How far a study is and how long it will take, read from the logs of its steps, wherever they run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from tskd.workflow.step_log import History, read_history
from tskd.workflow.steps import Step, read_progress

CLEAR = 0.05  # share of a step from which on its own speed says more than the estimate


@dataclass(frozen=True)
class Running:
    """A step that is running.

    Attributes:
        step: the step.
        share: how much of it is done, from 0 to 1; None where it does not say.
        left: seconds it will still take; None where nobody can say.
    """

    step: Step
    share: float | None
    left: float | None


class Follower:
    """Looks at the steps of a study while they run.

    Args:
        steps: those that have to run, each after those that it needs.
        estimates: path of a step -> seconds it is expected to take; what is missing is guessed from steps of its rule.
        slots: how many run side by side.
        since: seconds since 1970 when the run began; what began before is of earlier runs.
    """

    def __init__(self, steps: list[Step], estimates: Mapping[str, float], slots: int, since: float) -> None:
        self.steps, self.estimates, self.slots, self.since = steps, estimates, slots, since
        self.histories: dict[str, History] = {}

    def look(self) -> list[tuple[Step, History]]:
        """Read the logs again; the steps that have ended since the last look."""
        ended = []
        for step in self.steps:
            known = self.histories.get(step.path)
            if known is not None and known.state == "finished":
                continue  # what failed may run once more in the same run: a cluster sends what was killed again
            history = read_history(step.log)
            if history is None or history.began < self.since:
                continue
            self.histories[step.path] = history
            if history.state in ("finished", "failed") and history != known:
                ended.append((step, history))
        return ended

    @property
    def finished(self) -> list[Step]:
        """Steps that are finished."""
        return [step for step in self.steps if self._state(step) == "finished"]

    @property
    def failed(self) -> list[tuple[Step, History]]:
        """Steps that have failed, with what their logs say."""
        return [(step, self.histories[step.path]) for step in self.steps if self._state(step) == "failed"]

    def running(self, now: float) -> list[Running]:
        """Return steps that are running at `now`, in seconds since 1970."""
        return [self._running(step, now) for step in self.steps if self._state(step) == "running"]

    def left(self, now: float) -> float | None:
        """Return seconds until all is done: the longest chain of steps, or the work over the slots; None if unknown."""
        rest: dict[str, float] = {}
        for step in self.steps:
            seconds = self._left(step, now)
            if seconds is None:
                return None
            rest[step.path] = seconds
        ends: dict[str, float] = {}
        for step in self.steps:
            ends[step.path] = rest[step.path] + max((ends.get(needed.path, 0.0) for needed in step.needs), default=0.0)
        return max(max(ends.values(), default=0.0), sum(rest.values()) / self.slots)

    def _state(self, step: Step) -> str:
        history = self.histories.get(step.path)
        return history.state if history else "waiting"

    def _running(self, step: Step, now: float) -> Running:
        progress, history = read_progress(step.path), self.histories[step.path]
        share = progress["done"] / progress["total"] if progress.get("total") else None
        return Running(step, share, self._remaining(step, share, now - history.began))

    def _left(self, step: Step, now: float) -> float | None:
        if self._state(step) == "finished":
            return 0.0
        return self._running(step, now).left if self._state(step) == "running" else self._expected(step)

    def _remaining(self, step: Step, share: float | None, spent: float) -> float | None:
        if share is not None and share > CLEAR:
            return spent * (1 - share) / share
        expected = self._expected(step)
        return None if expected is None else max(expected - spent, 0.0)

    def _expected(self, step: Step) -> float | None:
        """Return the estimate times how much longer finished steps took; without one, the mean of those of its rule.

        Finished steps of the same rule say most; others only if their estimates were measured, too.
        """
        alike = [done for done in self.finished if done.rule == step.rule]
        if step.path in self.estimates:
            measured = [done for done in self.finished if done.configs]
            known = [done for done in (alike or measured) if self.estimates.get(done.path)]
            spent = sum(self.histories[done.path].seconds for done in known)
            planned = sum(self.estimates[done.path] for done in known)
            return self.estimates[step.path] * (spent / planned if planned else 1.0)
        return statistics.fmean(self.histories[done.path].seconds for done in alike) if alike else None


def duration(seconds: float) -> str:
    """Return `2 h 05 min`, `3 min` or `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
