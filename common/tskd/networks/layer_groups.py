"""Parameter groups of a fine-tuning: frozen modules and layer-wise learning rate decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import ViT
from torch import nn

from tskd.errors import TskdError
from tskd.networks.deep_supervision import without_heads
from tskd.networks.named_modules import named_module
from tskd.networks.taps import TappedNetwork


def frozen(network: nn.Module, modules: Sequence[str]) -> nn.Module:
    """Freeze all parameters under the named modules and return the network.

    Batch norms of a frozen module still follow the statistics of the new images, as those of a trained one do.

    Args:
        network: network, changed in place.
        modules: names as `network.named_modules()` has them; each stands for everything below it.

    Raises:
        TskdError: a name is that of no module, or nothing is left to train.
    """
    for name in modules:
        named_module(network, name, "freeze").requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise TskdError(f"freeze: expected something left to train, found all of it in {list(modules)}. Freeze less.")
    return network


def batch_norm_momentum(network: nn.Module, momentum: float | None) -> nn.Module:
    """Set the momentum of all batch norms' running statistics and return the network.

    The statistics are used after training. At EfficientNet's 0.01 they lag hundreds of steps behind the weights, and a
    student of a short training predicts nothing; torch's default is 0.1. The momentum is not part of the state dict.

    Args:
        network: network, changed in place.
        momentum: weight of a new batch, above 0 and at most 1; None leaves the network's own.

    Raises:
        TskdError: a momentum out of its range.
    """
    if momentum is not None and not 0 < momentum <= 1:
        raise TskdError(f"batch_norm_momentum: expected a number above 0 and at most 1, or null, found {momentum}")
    for module in network.modules():
        if momentum is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum
    return network


def parameter_groups(
    network: nn.Module,
    learning_rate: float,
    layers: Sequence[str] = (),
    layer_decay: float | None = None,
    vit_lr_mult: float = 1.0,
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: layer-wise decay, and a learning rate of its own for a ViT.

    Of n layers, number i (from 0 at the image) learns at `learning_rate * layer_decay ** (n - i)`, everything outside
    of them (norms, decoder, head) at `learning_rate`; a ViT's parameters at `vit_lr_mult` times that. ULMFiT, arXiv
    1801.06146; for vision transformers BEiT, arXiv 2106.08254, with 0.65 to 0.75.

    Args:
        network: segmentation network, or one with a `TappedNetwork` or heads around it (which learn at full rate).
        learning_rate: rate of the last layers.
        layers: names of modules from the image on, such as vit.patch_embedding, vit.blocks.0, ...
        layer_decay: factor from one layer to the one before it, above 0 and at most 1; None for one rate everywhere.
        vit_lr_mult: factor of the learning rate of a MONAI ViT in the network, above 0; no matter to other networks.

    Returns:
        Groups {params, lr} of the parameters that have a gradient, the slowest first, each parameter once.

    Raises:
        TskdError: `layer_decay` or `vit_lr_mult` is out of its range, or a layer is no module of the network.
    """
    if vit_lr_mult <= 0:
        raise TskdError(f"vit_lr_mult: expected a number above 0, found {vit_lr_mult}. To leave a ViT as it is: freeze")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise TskdError(f"layer_decay: expected a number above 0 and at most 1, or null, found {layer_decay}")
    inner = without_heads(network.network if isinstance(network, TappedNetwork) else network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    factors = {id(parameter): 1.0 for parameter in network.parameters()}
    for module in inner.modules():
        if isinstance(module, ViT):
            factors.update({id(parameter): vit_lr_mult for parameter in module.parameters()})
    for position, layer in enumerate(layers if layer_decay is not None else ()):
        decay = layer_decay ** (len(layers) - position)  # type: ignore[operator]
        for parameter in named_module(inner, layer, "layers").parameters():
            factors[id(parameter)] *= decay
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in trained:
        groups.setdefault(factors[id(parameter)], []).append(parameter)
    return [{"params": groups[factor], "lr": learning_rate * factor} for factor in sorted(groups)]
