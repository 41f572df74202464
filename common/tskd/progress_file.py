"""Progress bar that also writes its state to a file, so that other processes can follow it."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tqdm import tqdm

from tskd.files import write_text

VARIABLE = "TSKD_PROGRESS"  # environment: the file to write, none where nobody follows
INTERVAL = 1.0  # seconds between two writes


class FollowedBar(tqdm):
    """Progress bar of tqdm that also writes {"done", "total", "time"} to the file that `TSKD_PROGRESS` names.

    A run that is one step of a study says so how far it is, on this machine or on another one that shares its disk.
    `done` and `total` are counts of `unit`, `time` is in seconds since 1970. The file is written without a terminal
    and with `TQDM_DISABLE`, too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._file = os.environ.get(VARIABLE)
        self._done, self._written = kwargs.get("initial", 0), 0.0
        self._total = kwargs.get("total")
        super().__init__(*args, **kwargs)
        self._write()

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more."""
        self._done += n or 0
        if time.monotonic() - self._written > INTERVAL or self._done == self._total:
            self._write()
        return super().update(n)

    def _write(self) -> None:
        if not self._file:
            return
        self._written = time.monotonic()
        write_text(self._file, json.dumps({"done": self._done, "total": self._total, "time": time.time()}) + "\n")
