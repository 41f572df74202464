"""A network without the modules that its output does not depend on: `tskd ship` copies this file where it is needed."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

LEAST_SHARE = 0.01  # of the parameters: for less, a stock network stays stock


def without_modules(network: nn.Module, unused: Sequence[str]) -> nn.Module:
    """Return the network (changed in place) with nothing in the place of the named modules.

    Args:
        network: any network.
        unused: names of modules, with dots between the levels.
    """
    for name in unused:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
    return network


def unused_modules(network: nn.Module, image: torch.Tensor) -> list[str]:
    """Return the modules that no output depends on, so that none of their parameters ever gets a gradient.

    Args:
        network: any network.
        image: B x channels x H x W that it takes.

    Returns:
        Names, the outermost only; none where they have less than `LEAST_SHARE` of the parameters, or where the network
        does not give the same output without them.
    """
    network = copy.deepcopy(network).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    with torch.enable_grad():
        output = network(image)
        output.square().sum().backward()
    unused: list[str] = []
    for name, module in network.named_modules():
        parameters = list(module.parameters())
        inside = any(name.startswith(f"{outer}.") for outer in unused)
        if name and parameters and not inside and all(value.grad is None for value in parameters):
            unused.append(name)
    count = sum(value.numel() for value in network.parameters())
    try:
        reduced = without_modules(network, unused)
        with torch.no_grad():
            same = torch.equal(reduced(image), output)
    except (RuntimeError, TypeError, AttributeError):
        return []
    saved = count - sum(value.numel() for value in reduced.parameters())
    return unused if same and saved >= LEAST_SHARE * count else []
