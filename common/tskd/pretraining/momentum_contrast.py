"""Momentum contrast, version 3, on the student's own encoder (Chen, Xie, He, arXiv 2104.02057)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.networks.nets import ViT
from torch import Tensor, nn
from torch.nn import functional

from tskd import ranks
from tskd.errors import TskdError
from tskd.handlers.updates import updates_weights
from tskd.pretraining.masked_autoencoder import patch_convolution


class MomentumContrast(nn.Module):
    """Encoder, projector and predictor in training, with a momentum copy of encoder and projector.

    An image is the mean of its tokens after the last block, before the final norm: the paper finds that as good as a
    class token, and the mean after the norm worse (section 6). The random patch projection stays frozen, which keeps
    the training of a ViT stable (section 4.2).

    Args:
        vit: 2-D MONAI ViT without class token; its patch projection is frozen in place.
        hidden_size: width of projector (three layers) and predictor (two).
        output_size: length of the vectors that are compared.
    """

    def __init__(self, vit: ViT, hidden_size: int = 1024, output_size: int = 256) -> None:
        super().__init__()
        patches = patch_convolution(vit).requires_grad_(False)
        self.vit = vit
        self.projector = _mlp([patches.out_channels, hidden_size, hidden_size, output_size])
        self.predictor = _mlp([output_size, hidden_size, output_size])
        self.momentum_vit = deepcopy(vit).requires_grad_(False)
        self.momentum_projector = deepcopy(self.projector).requires_grad_(False)

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """Encode two views of each image.

        Args:
            views: 2B x C x H x W, all first views, then all second.

        Returns:
            `queries` and `keys`, both 2 x B x output_size (views first); keys have no gradient.
        """
        pooled = self._pooled(self.vit, views)
        queries = [self.predictor(self.projector(half)) for half in pooled.chunk(2)]
        with torch.no_grad():
            pooled = self._pooled(self.momentum_vit, views)
            keys = [self.momentum_projector(half) for half in pooled.chunk(2)]
        return {"queries": torch.stack(queries), "keys": torch.stack(keys)}

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Move the copy: momentum * copy + (1 - momentum) * original, for every parameter."""
        for copy, original in ((self.momentum_vit, self.vit), (self.momentum_projector, self.projector)):
            for follower, leader in zip(copy.parameters(), original.parameters(), strict=True):
                follower.lerp_(leader, 1 - momentum)

    @staticmethod
    def _pooled(vit: nn.Module, views: Tensor) -> Tensor:
        _, blocks = vit(views)
        return blocks[-1].mean(1)


class ContrastiveLoss(nn.Module):
    """Symmetric InfoNCE: each query finds the key of its image's other view among those of the batch.

    There is no queue: the negatives are the other images of the batch, of all processes where there are several.

    Args:
        temperature: divides the cosine similarities; the loss is multiplied by twice it, as in the published code.

    Shape:
        outputs of `MomentumContrast`; returns a scalar.

    Raises:
        TskdError: where there is nothing to tell apart, with a batch of one image.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: Mapping[str, Tensor], _views: Tensor | None = None) -> Tensor:
        """Return the sum over both directions."""
        queries = functional.normalize(outputs["queries"], dim=-1)
        keys = functional.normalize(outputs["keys"].detach(), dim=-1)
        return self._info_nce(queries[0], keys[1]) + self._info_nce(queries[1], keys[0])

    def _info_nce(self, queries: Tensor, keys: Tensor) -> Tensor:
        keys, first = _gather_keys(keys)
        if len(keys) < 2:
            raise TskdError("contrastive loss: expected a batch_size of 2 or more (the others are negatives), found 1")
        positives = first + torch.arange(len(queries), device=queries.device)
        return 2 * self.temperature * functional.cross_entropy(queries @ keys.T / self.temperature, positives)


class MomentumUpdate:
    """Update the momentum copy after every step; the momentum rises to 1 along half a cosine.

    Args:
        network: the `MomentumContrast` in training, not wrapped for several processes.
        momentum: its first value.
    """

    def __init__(self, network: MomentumContrast, momentum: float = 0.99) -> None:
        self.network = network
        self.momentum = momentum

    def attach(self, engine: Engine) -> None:
        """Register on the iterations."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Update the copy, where the iteration was a step of the optimizer."""
        if not updates_weights(engine):
            return
        total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
        self.network.update(self.at(engine.state.iteration / total))

    def at(self, progress: float) -> float:
        """Return the momentum at a fraction of the training, from 0 to 1."""
        return 1 - (1 - self.momentum) * (1 + math.cos(math.pi * progress)) / 2


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Build linear layers with batch norm, ReLU between them; the last norm has no parameters."""
    layers: list[nn.Module] = []
    for last, (inputs, outputs) in enumerate(pairwise(sizes), start=2 - len(sizes)):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs, affine=last < 0)]
        layers += [nn.ReLU(inplace=True)] if last < 0 else []
    return nn.Sequential(*layers)


def _gather_keys(keys: Tensor) -> tuple[Tensor, int]:
    """Return the keys of all processes in the order of their ranks, and the index of the first of this one."""
    return idist.all_gather(keys.contiguous()), ranks.rank() * len(keys)  # type: ignore[return-value]
