"""The processes of a run under torchrun, by `ignite.distributed`; without it there is one, of rank 0.

The first call in each process sets ignite up, in which all processes take part.
"""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from ignite.distributed import get_rank as rank
from ignite.distributed import get_world_size as world_size

__all__ = ["gather", "is_first", "mean", "rank", "world_size"]


def is_first() -> bool:
    """Return whether this process is the one that writes files."""
    return rank() == 0


def gather(value: Any) -> list[Any]:
    """Return a small object of every process, in the order of their ranks; all of them must call it."""
    gathered: Any = idist.all_gather((value,))  # a tuple is sent as it is, a number alone as a tensor
    return [item for (item,) in gathered]


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a floating-point tensor over the processes, all of which must call it."""
    total: Any = idist.all_reduce(values.clone())
    return total / world_size()
