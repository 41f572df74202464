"""How far a study is and how long it will take, read from the records that its steps write, wherever they run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tskd.workflow.step import Task
from tskd.workflow.steps import Record, Step, read_progress, read_record
from tskd.workflow.study import Study

CLEAR = 0.05  # share of a step from which on its own speed says more than the estimate


def pending(study: Study) -> list[Step]:
    """Steps that have to run: not finished, made from something else than now, or after a step that has to run."""
    found: dict[str, Step] = {}
    for path, step in study.steps.items():
        record = read_record(step.path)
        if (
            any(needed.done in found for needed in step.needs)
            or record is None
            or not Path(step.done).is_file()
            or record.made_from != task(study, step).made_from
        ):
            found[path] = step
    return list(found.values())


def task(study: Study, step: Step) -> Task:
    """The step as `tskd.workflow.step` runs it."""
    folder = Path(step.folder) if step.folder else None
    inputs = tuple(Path(file) for file in step.inputs)
    return Task(study.step_name(step), step.command, step.path, folder, step.configs is not None, inputs)


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
        since: seconds since 1970 when the run began; older records are of earlier runs.
    """

    def __init__(self, steps: list[Step], estimates: Mapping[str, float], slots: int, since: float) -> None:
        self.steps, self.estimates, self.slots, self.since = steps, estimates, slots, since
        self.records: dict[str, Record] = {}

    def look(self) -> list[tuple[Step, Record]]:
        """Read the records again; the steps that have ended since the last look."""
        ended = []
        for step in self.steps:
            known = self.records.get(step.path)
            if known is not None and known.state in ("finished", "failed", "stopped") and not self._again(known):
                continue
            record = read_record(step.path)
            finished_before = record is not None and record.state == "finished" and Path(step.done).is_file()
            if record is None or (record.began < self.since and not finished_before):
                continue
            self.records[step.path] = record
            if record.state == "failed" or finished_before:
                ended.append((step, record))
        return ended

    def _again(self, record: Record) -> bool:
        """Whether a step may run once more in the same run: a cluster sends what was killed again."""
        return record.state != "finished"

    @property
    def finished(self) -> list[Step]:
        """Steps that are finished."""
        return [step for step in self.steps if self._state(step) == "finished"]

    @property
    def failed(self) -> list[tuple[Step, Record]]:
        """Steps that have failed, with their records."""
        return [(step, self.records[step.path]) for step in self.steps if self._state(step) == "failed"]

    def running(self, now: float) -> list[Running]:
        """Steps that are running at `now`, in seconds since 1970."""
        return [self._running(step, now) for step in self.steps if self._state(step) == "running"]

    def left(self, now: float) -> float | None:
        """Seconds until all is done: the longest chain of steps, or the work over the slots; None if unknown."""
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
        record = self.records.get(step.path)
        return record.state if record else "waiting"

    def _running(self, step: Step, now: float) -> Running:
        progress, record = read_progress(step.path), self.records[step.path]
        share = progress["done"] / progress["total"] if progress.get("total") else None
        return Running(step, share, self._remaining(step, share, now - record.began))

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
        """The estimate times how much longer finished steps took; without one, the mean of those of its rule."""
        done = [other for other in self.finished if self.records[other.path].began >= self.since]
        alike = [other for other in done if other.rule == step.rule]
        if step.path in self.estimates:
            known = [other for other in (alike or done) if self.estimates.get(other.path)]
            spent = sum(self.records[other.path].seconds for other in known)
            planned = sum(self.estimates[other.path] for other in known)
            return self.estimates[step.path] * (spent / planned if planned else 1.0)
        return statistics.fmean(self.records[other.path].seconds for other in alike) if alike else None


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min` or `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
