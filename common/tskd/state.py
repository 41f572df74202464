"""Save weights atomically as tensors only, and load them strictly."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tskd.errors import TskdError
from tskd.files import atomic


def save_tensors(content: Mapping[str, Any], path: str | Path) -> None:
    """Write `content` (tensors and plain values) with torch, atomically; equal content gives equal bytes.

    Raises:
        TskdError: when the file cannot be written.
    """
    with atomic(path) as draft:
        try:
            with draft.open("wb") as file:  # of a path torch puts the name, which is the draft's, into the archive
                torch.save(content, file)
        except RuntimeError as error:  # so does torch's writer report a full disk
            raise OSError(error) from error


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file atomically.

    Raises:
        TskdError: when it cannot be written.
    """
    with atomic(target) as draft:
        shutil.copyfile(source, draft)


def read_tensors(path: str | Path) -> Any:
    """Read a file written by `save_tensors` or any other file of tensors; execute no code from it.

    Raises:
        TskdError: when the file is missing, damaged or not one of tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises depends on where it stumbles
        advice = isinstance(error, pickle.UnpicklingError)  # to load it all the same, which might run its code
        said = "" if advice else f" ({str(error).strip().partition(chr(10))[0]})"
        raise TskdError(f"{path}: expected a file of tensors, found none, or a damaged or other one{said}") from error


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state dict of `network` (CPU tensors, nothing else) to `path`, atomically.

    Raises:
        TskdError: when the file cannot be written.
    """
    save_tensors({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, path)


def mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return the sorted entries that are missing, unexpected or differently shaped in `state`; empty if it fits."""
    wrong = [f"missing {name}" for name in expected.keys() - state.keys()]
    wrong += [f"unexpected {name}" for name in state.keys() - expected.keys()]
    wrong += [
        f"{name}: expected shape {tuple(expected[name].shape)}, found {tuple(state[name].shape)}"
        for name in expected.keys() & state.keys()
        if expected[name].shape != state[name].shape
    ]
    return sorted(wrong)


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Load a state dict into `network`, strictly, and return it.

    Raises:
        TskdError: when the file is missing or damaged, or naming each missing, unexpected or differently shaped entry.
    """
    path = Path(path)
    if not path.is_file():
        raise TskdError(f"{path}: expected a weights file, found none. Train the model first, or give its path")
    return load_state(network, read_tensors(path), path)


def load_state(network: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> nn.Module:
    """Load a state dict that was read from `path`, strictly, and return the network.

    Raises:
        TskdError: naming each missing, unexpected or differently shaped entry.
    """
    if wrong := mismatches(network.state_dict(), state):
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise TskdError(
            f"{path} does not fit the network (other classes, size or architecture?): {'; '.join(wrong[:8])}{more}"
        )
    network.load_state_dict(state)
    return network
