"""What a training sets up before anything else: errors, overrides, processes, seed and GPU flags."""

from __future__ import annotations

import os

import ignite.distributed as idist
import torch
from monai.utils import set_determinism

from tskd.errors import plain_errors
from tskd.options import check_overrides


def start_run(seed: int) -> None:
    """Check the command line's overrides, seed Python, NumPy and torch, and let a GPU choose its fastest kernels.

    Errors that a user can act on are printed without a traceback from here on.

    Raises:
        TskdError: an override that names no key of the config.
    """
    plain_errors()
    check_overrides()
    set_determinism(seed=seed, use_deterministic_algorithms=None)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.deterministic = False  # set by set_determinism; convolutions of fixed sizes are much faster so
    torch.backends.cudnn.benchmark = True


def own_device() -> torch.device:
    """Return the device of this process under torchrun: the GPU of its number on the machine, else the CPU."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")


def join_processes(device: torch.device) -> None:
    """Join the processes that torchrun has started, each with its device."""
    plain_errors()
    check_overrides()
    torch.distributed.init_process_group(backend="nccl" if torch.cuda.is_available() else "gloo")
    if torch.cuda.is_available():
        torch.cuda.set_device(device)


def leave_processes() -> None:
    """Leave the processes that `join_processes` has joined."""
    if torch.distributed.is_initialized():
        idist.sync()
        idist.finalize()  # ends torch's group too
