"""Size and speed of a network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.inference_mode()
def profile_network(
    network: nn.Module, shape: Sequence[int], device: str | torch.device = "cpu", repeats: int = 20
) -> dict[str, Any]:
    """Measures one forward pass of a batch of one, in float32.

    Args:
        network: network to measure; moved to `device` and set to evaluation mode.
        shape: c x H x W of one image.
        device: where to run.
        repeats: timed forwards, after three that are not.

    Returns:
        `parameters`; `gmac` (10^9 multiply-accumulates of convolutions and matrix products, counted by torch);
        `ms_per_image` (median) and `ms_p95`; `peak_memory_mb` on CUDA; `device`, `threads` and `shape`.
    """
    device = torch.device(device)
    network = network.to(device).eval()
    x = torch.rand(1, *shape, device=device)
    with FlopCounterMode(display=False) as counter:
        network(x)
    times = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(repeats + 3):
        begin = time.perf_counter()
        network(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - begin))
    times = sorted(times[3:])
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "gmac": counter.get_total_flops() / 2e9,
        "ms_per_image": statistics.median(times),
        "ms_p95": times[max(0, round(0.95 * len(times)) - 1)],
        "peak_memory_mb": memory,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "shape": list(shape),
    }
