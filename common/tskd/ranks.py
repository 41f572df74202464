"""The processes of a run under torchrun, by `ignite.distributed`; without it there is one, of rank 0.

The first call in each process sets ignite up, in which all processes take part.
"""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from torch import distributed

__all__ = ["gather", "is_first", "mean", "rank", "world_size"]


def rank() -> int:
    """Return the number of this process among those of the run."""
    return idist.get_rank() if _several() else 0


def world_size() -> int:
    """Return the number of processes."""
    return idist.get_world_size() if _several() else 1


def is_first() -> bool:
    """Return whether this process is the one that writes files."""
    return rank() == 0


def gather(value: Any) -> list[Any]:
    """Return a small object of every process, in the order of their ranks; all of them must call it."""
    if not _several():
        return [value]
    gathered: Any = idist.all_gather((value,))  # a tuple is sent as it is, a number alone as a tensor
    return [item for (item,) in gathered]


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a floating-point tensor over the processes, all of which must call it."""
    if not _several():
        return values.clone()
    total: Any = idist.all_reduce(values.clone())
    return total / world_size()


def _several() -> bool:
    """Whether there is a group; ignite alone goes on to ask one that a run before in this process has ended."""
    return distributed.is_available() and distributed.is_initialized()
