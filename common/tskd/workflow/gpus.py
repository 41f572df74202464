"""The GPUs of this machine, and one of them for one step where there are several and steps run side by side."""

from __future__ import annotations

import getpass
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tskd.visible_gpus import visible


@contextmanager
def reserve(devices: list[str] | None = None) -> Iterator[dict[str, str]]:
    """Yield an environment that leaves a process one GPU which no other step holds; wait until there is one.

    The lock is a file lock: it ends with the process, however that ends. With no more than one GPU in sight (a machine
    without, or a cluster's job that was given its own) there is nothing to choose, and the environment is empty.

    Args:
        devices: the GPUs to choose from; None for `visible()`.
    """
    devices = visible() if devices is None else devices
    if len(devices) < 2:
        yield {}
        return
    folder = Path(tempfile.gettempdir()) / f"tskd-gpus-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    while True:
        for device in devices:
            lock = FileLock(folder / device.replace("/", "_"), blocking=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            try:
                yield {"CUDA_VISIBLE_DEVICES": device}
            finally:
                lock.release()
            return
        time.sleep(0.5)
