"""What a training step of a network costs, counted on the meta device: nothing is computed, no memory is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

GIB = 2**30


class StepCost(NamedTuple):
    """A training step of one image: parameters, 10^9 multiply-adds of a forward pass, and bytes in single precision.

    `weights` are parameters and buffers, `states` the gradients and AdamW's two averages of what is trained,
    `activations` what the forward pass keeps for the backward pass, for each image.
    """

    parameters: int
    trainable: int
    gmac: float
    weights: int
    states: int
    activations: int

    def memory(self, batch_size: int = 1, half: bool = False) -> int:
        """Bytes of a step of `batch_size` images; with `half` the activations are in 16 bits, as under autocast."""
        return self.weights + self.states + batch_size * self.activations // (2 if half else 1)

    def step_gmac(self, batch_size: int = 1) -> float:
        """10^9 multiply-adds of a step: forward, gradients of the activations, and those of the trained weights."""
        share = self.trainable / max(self.parameters, 1)
        return batch_size * self.gmac * (2 + share)


def step_cost(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> StepCost:
    """Count the cost of a training step.

    Attention is counted as fused kernels have it, which keep queries, keys, values, the result and a bias, but no
    matrix of weights.

    Args:
        build: makes the network, ready for training; what is to be frozen requires no gradient.
        shape: c x H x W of an image.
    """
    with torch.device("meta"), _no_autocast():
        network = build().to("meta").train()
        image = torch.rand(1, *shape)
        gmac = forward_gmac(network, shape)
        kept: dict[int, int] = {}
        known = {_key(value) for value in (*network.parameters(), *network.buffers())}

        def pack(value: Tensor) -> Tensor:
            if _key(value) not in known:
                kept[_key(value)] = value.untyped_storage().nbytes()
            alive.append(value)  # a storage that is gone may give its key to another
            return value

        alive: list[Tensor] = []
        with _fused_attention(), torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            output = network(image)
    parameters = list(network.parameters())
    trainable = [value for value in parameters if value.requires_grad]
    held = sum(value.numel() * value.element_size() for value in (*parameters, *network.buffers()))
    del output
    return StepCost(
        parameters=sum(value.numel() for value in parameters),
        trainable=sum(value.numel() for value in trainable),
        gmac=gmac,
        weights=held,
        states=3 * sum(value.numel() * value.element_size() for value in trainable),
        activations=sum(kept.values()),
    )


def forward_gmac(network: nn.Module, shape: tuple[int, ...], **more: Any) -> float:
    """Count the multiply-adds of a forward pass of one image on the meta device, in 10^9.

    Args:
        network: its parameters are moved to the meta device.
        shape: c x H x W of the image.
        more: further arguments of the network.
    """
    with torch.device("meta"), _no_autocast(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network, image = network.to("meta"), torch.rand(1, *shape)
        with FlopCounterMode(display=False) as counter:
            network(image, **more)
    return counter.get_total_flops() / 2e9


def _key(value: Tensor) -> int:
    return value.untyped_storage()._cdata


class _Attention(torch.autograd.Function):
    """Keeps for the backward pass what a fused kernel does."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, result, *([] if bias is None else [bias]))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:  # never asked for
        return None, None, None, None


@contextmanager
def _no_autocast() -> Iterator[None]:
    """Autocast knows no meta device."""
    plain = torch.autocast
    torch.autocast = lambda *_, **__: nullcontext()  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        torch.autocast = plain  # type: ignore[misc]


@contextmanager
def _fused_attention() -> Iterator[None]:
    plain = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        return _Attention.apply(query, key, value, attn_mask)

    F.scaled_dot_product_attention = fused  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain
