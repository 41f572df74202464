"""The GPUs of this machine, found without PyTorch."""

from __future__ import annotations

import os
import subprocess
from itertools import takewhile


def visible() -> list[str]:
    """Return the GPUs this process may use, as `CUDA_VISIBLE_DEVICES` names them; empty without a driver.

    As in CUDA, a number below 0 hides itself and all behind it.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        return list(takewhile(lambda name: not name.startswith("-"), names))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    cards = [line for line in listed.splitlines() if line.startswith("GPU ")]  # below each, its MIG slices
    return [str(number) for number, _ in enumerate(cards)]
