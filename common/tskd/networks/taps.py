"""Intermediate features of any segmentation network, by module name (forward hook)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tskd.errors import TskdError
from tskd.networks.deep_supervision import DeeplySupervisedNetwork, without_heads
from tskd.networks.named_modules import dry_run, first_tensor, module_outputs, named_module


class TappedNetwork(nn.Module):
    """Segmentation network that also returns the intermediate features of one of its modules.

    The network itself is not changed: `.network` keeps its stock state dict. The forward hook lives only as long as one
    forward, so the wrapper can be copied, saved and wrapped in DistributedDataParallel like any module.

    Args:
        network: 2-D segmentation network, B x c x H x W to B x C x H x W.
        tap: name of the module to tap, as `network.named_modules()` has it; for MONAI's UNETR, `vit.norm` gives the
            tokens of its encoder.
        embedding_channels: channels to project the features to, by the 1x1 convolution `projection`; None leaves them
            as they are.
        example_shape: shape of an input (B, c, H, W), needed with `embedding_channels`: the network is run once on
            zeros to learn how many channels the features have.

    Raises:
        TskdError: no such module; or its output is no feature map.
    """

    def __init__(
        self,
        network: nn.Module,
        tap: str,
        embedding_channels: int | None = None,
        example_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        named_module(without_heads(network), tap, "tap")
        self.network = network
        self.tap = tap
        self.projection: nn.Module = nn.Identity()
        if embedding_channels is None:
            return
        if example_shape is None:
            raise TskdError("embedding_channels needs example_shape, the shape of an input such as (1, 1, 256, 256)")
        channels = self._tap_channels(example_shape)
        device = next((p.device for p in network.parameters()), None)
        self.projection = nn.Conv2d(channels, embedding_channels, 1, device=device)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Run the network.

        Args:
            x: images B x c x H x W.

        Returns:
            `logits`: the network's output (the first one, if it has several); `features`: the tapped ones,
            B x D x h x w; `embedding`: these projected, B x E x h x w. Tokens B x N x D become a map of the image's
            proportions, as do features with the channels last. Of a `DeeplySupervisedNetwork` in training also
            `auxiliary`: a list of its heads' logits.
        """
        output, features = self._run(x)
        answers = {"logits": first_tensor(output), "features": features, "embedding": self.projection(features)}
        with_heads = isinstance(self.network, DeeplySupervisedNetwork) and self.training
        return {**answers, "auxiliary": output[1:]} if with_heads else answers

    def _run(self, x: Tensor) -> tuple[Any, Tensor]:
        path = self.tap if without_heads(self.network) is self.network else f"network.{self.tap}"
        output, features = module_outputs(self.network, [path], x, "tap")
        return output, _as_map(features[path], x, self.tap)

    def _tap_channels(self, shape: Sequence[int]) -> int:
        parameter = next(self.network.parameters(), torch.zeros(()))
        with dry_run(self.network):
            _, features = self._run(torch.zeros(tuple(shape), device=parameter.device, dtype=parameter.dtype))
        return features.shape[1]


def _as_map(features: Tensor, x: Tensor, tap: str) -> Tensor:
    height, width = x.shape[-2:]
    if features.ndim == 4:
        if features.shape[2] * width == features.shape[3] * height:
            return features
        if features.shape[1] * width == features.shape[2] * height:
            return features.movedim(3, 1)
    if features.ndim == 3:
        tokens = features.shape[1]
        h = round(math.sqrt(tokens * height / width))
        if h > 0 and tokens % h == 0 and h * width == tokens // h * height:
            return features.transpose(1, 2).unflatten(2, (h, tokens // h))
    raise TskdError(
        f"tap {tap!r}: expected features B x D x h x w or B x h x w x D, or tokens B x N x D with N = h * w, in the "
        f"proportions of the {height} x {width} image (no class token), found {tuple(features.shape)}; choose another"
    )
