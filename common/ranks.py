"""The processes of a run under torchrun; without it there is one, of rank 0."""

from __future__ import annotations

import torch
import torch.distributed as dist


def running() -> bool:
    """Whether a process group has been set up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if running() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if running() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def mean(values: torch.Tensor) -> torch.Tensor:
    """Mean of a floating-point tensor over the processes, all of which must call it; of one, the tensor itself."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()
