"""The GPUs of this machine, found without PyTorch."""

from __future__ import annotations

import os
import subprocess


def visible() -> list[str]:
    """Return the GPUs this process may use, as `CUDA_VISIBLE_DEVICES` names them; empty without a driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    cards = [line for line in listed.splitlines() if line.startswith("GPU ")]  # below each, its MIG slices
    return [str(number) for number, _ in enumerate(cards)]
