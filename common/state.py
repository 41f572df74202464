"""Weights on disk: tensors only, written atomically, loaded strictly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from common.errors import TskdError


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Writes the state dict of `network` (CPU tensors, nothing else) to `path`, atomically.

    Raises:
        TskdError: when the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name: value.detach().cpu() for name, value in network.state_dict().items()}, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise TskdError(f"{path}: cannot write the weights ({error}). Free disk space, or choose another path") from error


def misfits(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Sorted list of the entries that are missing, unexpected or differently shaped in `found`; empty if it fits."""
    wrong = [f"missing {name}" for name in own.keys() - found.keys()]
    wrong += [f"unexpected {name}" for name in found.keys() - own.keys()]
    wrong += [
        f"{name}: expected shape {tuple(own[name].shape)}, found {tuple(found[name].shape)}"
        for name in own.keys() & found.keys()
        if own[name].shape != found[name].shape
    ]
    return sorted(wrong)


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Loads a state dict into `network`, strictly, and returns it.

    Raises:
        TskdError: when the file is missing or not one of weights, or naming each missing, unexpected or differently shaped entry.
    """
    path = Path(path)
    if not path.is_file():
        raise TskdError(f"{path}: expected a weights file, found none. Train the model first, or give its path")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise TskdError(f"{path}: expected weights (tensors only), found a damaged or other file") from error
    if wrong := misfits(network.state_dict(), state):
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise TskdError(
            f"{path} does not fit the network (other classes, size or architecture?): {'; '.join(wrong[:8])}{more}"
        )
    network.load_state_dict(state)
    return network
