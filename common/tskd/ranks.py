"""The processes of a run under torchrun; without it there is one, of rank 0."""

from __future__ import annotations

from typing import Any

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


def gather(value: Any) -> list[Any]:
    """A small object of every process, in the order of their numbers; all of them must call it."""
    found: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(found, value)
    return found


def mean(values: torch.Tensor) -> torch.Tensor:
    """Mean of a floating-point tensor over the processes, all of which must call it; of one, the tensor itself."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()
