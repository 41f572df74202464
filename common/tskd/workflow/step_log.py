"""A step's log: all that its command prints, between lines that say what was run, when, and how it ended.

    [tskd] 2026-11-02T10:15:00.000000+01:00 began: tskd.cli prepare volumes --images scans ...
    ...
    [tskd] 2026-11-02T10:15:09.500000+01:00 finished after 9.5 s

The end is `finished`, `stopped` (by the user or the system) or `failed`, then with the cause as JSON. A step that goes
on in its folder writes on in its log. Whether a step has to run is Snakemake's to say, from its files; the log is what
people read, and what tells them how far a study is.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

_MARK = "[tskd] "
_LINE = re.compile(
    r"\[tskd\] (?P<time>\S+) (?:began: (?P<command>.*)|(?P<state>\w+) after (?P<spent>[\d.]+) s(?P<rest>.*))"
)


@dataclass(frozen=True)
class History:
    """What a log says.

    Attributes:
        command: as it was begun first.
        first: when the first part began, in seconds since 1970.
        began: when the last part began.
        ended: when it ended; 0 where it has not, or was killed.
        state: "running", "finished", "stopped" or "failed".
        seconds: spent in all parts that ended.
        cause: why it failed.
    """

    command: str
    first: float
    began: float
    ended: float = 0.0
    state: str = "running"
    seconds: float = 0.0
    cause: str = ""


def read_history(log: str | Path) -> History | None:
    """Return the history in a step's log; None where there is none."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [match for line in file if line.startswith(_MARK) and (match := _LINE.match(line))]
    except OSError:
        return None
    if not lines or lines[0]["command"] is None:
        return None
    parts = [line for line in lines if line["command"] is not None]
    ends = [line for line in lines if line["state"]]
    began = _seconds(parts[-1])
    last = ends[-1] if ends and lines[-1] is ends[-1] else None
    return History(
        parts[0]["command"], _seconds(parts[0]), began, _seconds(last) if last else 0.0,
        last["state"] if last else "running", sum(float(line["spent"]) for line in ends),
        json.loads(last["rest"][2:]) if last and last["rest"] else "",
    )  # fmt: skip


def write_beginning(log: IO[str], command: Sequence[str]) -> None:
    """Say what is run."""
    print(f"{_MARK}{_now()} began: {command_text(command)}", file=log, flush=True)


def write_end(log: IO[str], state: str, seconds: float, cause: str = "") -> None:
    """Say how it ended."""
    print(
        f"{_MARK}{_now()} {state} after {seconds:.3f} s{': ' + json.dumps(cause) if cause else ''}",
        file=log,
        flush=True,
    )


def command_text(command: Sequence[str]) -> str:
    """Return a module and its arguments in one line."""
    return shlex.join(command).replace("\n", " ")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="microseconds")


def _seconds(line: re.Match[str]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
