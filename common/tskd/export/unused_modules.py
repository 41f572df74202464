"""A network without the modules that its output does not depend on: `tskd ship` copies this file where it is needed."""

import copy
from collections.abc import Sequence

import torch
from torch import nn


def without_modules(network: nn.Module, unused: Sequence[str], dropout: float = 0.0) -> nn.Module:
    """Return the network (changed in place) with nothing in the place of the named modules.

    Args:
        network: any network.
        unused: names of modules, with dots between the levels.
        dropout: share of the last convolution's input channels that is dropped in training mode, for Monte-Carlo
            dropout as MONAI Label's scores have it: batch norms then keep their running statistics in that mode, too.
    """
    for name in unused:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
    if dropout > 0:
        _add_dropout(network, dropout)
    return network


def _add_dropout(network: nn.Module, share: float) -> None:
    modules = list(network.modules())
    last = [module for module in modules if isinstance(module, nn.Conv2d | nn.Conv3d)][-1]
    dropout = nn.functional.dropout2d if isinstance(last, nn.Conv2d) else nn.functional.dropout3d

    def drop(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (dropout(inputs[0], share, module.training), *inputs[1:])

    last.register_forward_pre_hook(drop)
    for module in modules:
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.eval()
            module.train = lambda mode=True, norm=module: norm  # type: ignore[method-assign, misc]


def unused_modules(network: nn.Module, image: torch.Tensor) -> list[str]:
    """Return the modules that no output depends on, so that none of their parameters ever gets a gradient.

    Args:
        network: any network.
        image: B x channels x H x W [x D] that it takes.

    Returns:
        Names, the outermost only; none where the network does not give the same output without them.
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
    try:
        reduced = without_modules(network, unused)
        with torch.no_grad():
            same = torch.equal(reduced(image), output)
    except (RuntimeError, TypeError, AttributeError):
        return []
    return unused if same else []
