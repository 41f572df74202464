"""Modules inside a network by name, and what they gave in a forward (hooks)."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tskd.errors import TskdError


def module_outputs(network: nn.Module, names: Sequence[str], x: Tensor, key: str) -> tuple[Any, dict[str, Tensor]]:
    """Return a network's output and that of some of its modules, the first tensor where they give several.

    The hooks live only as long as the forward, so that the network can be copied, saved and wrapped as before. Of a
    module that runs several times the last output is taken.

    Args:
        network: called with `x`.
        names: as `network.named_modules()` has them.
        x: images.
        key: of the config, for the error.

    Raises:
        TskdError: a module did not run.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.__setitem__(name, first_tensor(output))

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        output = network(x)
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if name not in outputs:
            raise TskdError(f"{key}: {type(network).__name__} did not run its module {name!r}; choose another")
    return output, outputs


def first_tensor(output: Any) -> Tensor:
    """Return a tensor, or the first of several."""
    return output if isinstance(output, Tensor) else output[0]


def named_module(network: nn.Module, name: str, key: str) -> nn.Module:
    """Return a module of a network.

    Args:
        network: searched, without itself.
        name: as `network.named_modules()` has it.
        key: of the config, for the error.

    Raises:
        TskdError: no such module; close names are given.
    """
    modules = {known: module for known, module in network.named_modules() if known}
    if name in modules:
        return modules[name]
    close = difflib.get_close_matches(name, modules, n=3, cutoff=0.5)
    listed = [known for known in modules if known.count(".") < 3]
    raise TskdError(
        f"{key}: {type(network).__name__} has no module {name!r}"
        + (f"; did you mean {' or '.join(close)}?" if close else ".")
        + f" Its modules (down to the third level): {', '.join(listed)}"
    )


@contextmanager
def dry_run(network: nn.Module) -> Iterator[None]:
    """Run a network to learn shapes: in evaluation mode and without gradients, each module's mode put back after it."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()  # batch statistics must not move
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
