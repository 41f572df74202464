"""Deep supervision of any 2-D network: the labels also teach decoder features, through heads that do not ship."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tskd.errors import TskdError
from tskd.networks.named_modules import dry_run, module_outputs, named_module

KEY = "deep_supervision"


class DeeplySupervisedNetwork(nn.Module):
    """Segmentation network that in training also predicts from features inside, each by a 1x1 convolution.

    As nnU-Net (arXiv 1809.10486) and MONAI's DynUNet do, but around the network: `.network` keeps its state dict, and
    is what is validated and shipped. The heads learn for the training alone.

    Args:
        network: from B x c x H x W to B x C x H x W.
        modules: whose features B x D x h x w get a head, as `network.named_modules()` has them.
        num_classes: C.
        example_shape: shape of an input (B, c, H, W); the network is run once on zeros to learn the features' shapes.

    Attributes:
        modules_by_size: the modules, those with the largest features first.

    Raises:
        TskdError: no such module, its output is no feature map, or a text in place of a list.
    """

    def __init__(
        self, network: nn.Module, modules: Sequence[str], num_classes: int, example_shape: Sequence[int]
    ) -> None:
        super().__init__()
        if isinstance(modules, str):
            raise TskdError(f"{KEY}: expected a list such as ['{modules}'], found the text {modules!r}")
        for name in modules:
            named_module(network, name, KEY)
        self.network = network
        shapes = _shapes(network, modules, example_shape)
        self.modules_by_size = sorted(modules, key=lambda name: shapes[name][2], reverse=True)
        device = next((p.device for p in network.parameters()), None)
        self.heads = nn.ModuleList(
            nn.Conv2d(shapes[name][1], num_classes, 1, device=device) for name in self.modules_by_size
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return the logits of B x c x H x W images; in training mode a list, the heads' after them by size."""
        if not self.training:
            return self.network(x)
        logits, features = module_outputs(self.network, self.modules_by_size, x, KEY)
        heads = zip(self.heads, self.modules_by_size, strict=True)
        return [logits, *(head(features[name]) for head, name in heads)]


def deeply_supervised(
    network: nn.Module, modules: Sequence[str], num_classes: int, example_shape: Sequence[int]
) -> nn.Module:
    """Return a `DeeplySupervisedNetwork`, or the network itself where no modules are named."""
    return DeeplySupervisedNetwork(network, modules, num_classes, example_shape) if modules else network


def without_heads(network: nn.Module) -> nn.Module:
    """Return the network inside a `DeeplySupervisedNetwork`, or any other as it is."""
    return network.network if isinstance(network, DeeplySupervisedNetwork) else network


def _shapes(network: nn.Module, modules: Sequence[str], shape: Sequence[int]) -> dict[str, torch.Size]:
    parameter = next(network.parameters(), torch.zeros(()))
    with dry_run(network):
        zeros = torch.zeros(tuple(shape), device=parameter.device, dtype=parameter.dtype)
        _, features = module_outputs(network, modules, zeros, KEY)
    for name, feature in features.items():
        if feature.ndim != 4 or feature.shape[2] * shape[3] != feature.shape[3] * shape[2]:
            raise TskdError(
                f"{KEY}: expected features B x D x h x w of {name!r} in the image's proportions, found "
                f"{tuple(feature.shape)}; name blocks of the decoder of a 2-D network"
            )
    return {name: feature.shape for name, feature in features.items()}
