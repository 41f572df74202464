"""Weights on disk: tensors only, written atomically, loaded strictly."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from common.errors import TskdError


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Writes the state dict of `network` (CPU tensors, nothing else) to `path`, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save({name: value.detach().cpu() for name, value in network.state_dict().items()}, temporary)
    os.replace(temporary, path)


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Loads a state dict into `network`, strictly, and returns it.

    Raises:
        TskdError: when the file is missing, or naming each missing, unexpected or differently shaped entry.
    """
    path = Path(path)
    if not path.is_file():
        raise TskdError(f"{path}: expected a weights file, found none. Train the model first, or give its path")
    state = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    wrong = [f"missing {name}" for name in own.keys() - state.keys()]
    wrong += [f"unexpected {name}" for name in state.keys() - own.keys()]
    wrong += [
        f"{name}: expected shape {tuple(own[name].shape)}, found {tuple(state[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise TskdError(
            f"{path} does not fit the network (other classes, size or architecture?): {'; '.join(sorted(wrong)[:8])}{more}"
        )
    network.load_state_dict(state)
    return network
