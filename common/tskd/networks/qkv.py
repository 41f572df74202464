"""Split a fused qkv layer into three equivalent linear layers, and fuse them again.

Encoders compute q, k and v with one linear layer; adapters want the three projections apart. The fused layouts differ:
SAM's output is [q, k, v], each over all heads; TinyViT's is, head by head, the [q, k, v] of that head.
"""

from typing import Any

import torch
from torch import Tensor, nn

PROJECTIONS = ("q", "k", "v")


class SplitQKV(nn.Module):
    """Three linear layers equivalent to one fused qkv layer.

    Args:
        fused: linear layer from C to 3 * C features.
        num_heads: None where the fused output is [q, k, v], each over all heads (SAM's ViT); the number of heads where
            it is, head by head, the [q, k, v] of that head (TinyViT).

    Shape:
        B x ... x C -> B x ... x 3C, in the layout of `fused`.
    """

    def __init__(self, fused: nn.Linear, num_heads: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        size = fused.out_features // 3
        for name, rows in zip(PROJECTIONS, self._rows(fused.out_features), strict=True):
            linear = nn.Linear(fused.in_features, size, bias=fused.bias is not None)
            linear = linear.to(fused.weight.device, fused.weight.dtype)
            linear.weight.data.copy_(fused.weight.data[rows])
            if fused.bias is not None:
                linear.bias.data.copy_(fused.bias.data[rows])
            self.add_module(name, linear)

    def _rows(self, out_features: int) -> Tensor:
        """Return 3 x C indices: rows of the fused weight that make up q, k and v."""
        heads = self.num_heads or 1
        return torch.arange(out_features).reshape(heads, 3, -1).transpose(0, 1).reshape(3, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three layers; return their outputs in the fused layout."""
        heads = self.num_heads or 1
        parts = [getattr(self, name)(x).unflatten(-1, (heads, -1)) for name in PROJECTIONS]
        return torch.stack(parts, dim=-2).flatten(-3)

    def fuse(self) -> nn.Linear:
        """Return the fused layer with the present weights."""
        layers = [getattr(self, name) for name in PROJECTIONS]
        size, bias = layers[0].out_features, layers[0].bias is not None
        fused = nn.Linear(layers[0].in_features, 3 * size, bias=bias).to(
            layers[0].weight.device, layers[0].weight.dtype
        )
        for layer, rows in zip(layers, self._rows(3 * size), strict=True):
            fused.weight.data[rows] = layer.weight.data
            if bias:
                fused.bias.data[rows] = layer.bias.data
        return fused


def attentions(encoder: nn.Module) -> list[tuple[str, Any]]:
    """Return (name, module) of every attention with a (fused or split) qkv layer, first block first."""
    return [(name, module) for name, module in encoder.named_modules() if hasattr(module, "qkv")]


def adaptable_layers(encoder: nn.Module) -> list[dict[str, list[str]]]:
    """Return, for each attention block from the first on, target (q, k, v, proj, mlp) -> names of its linear layers.

    A fused qkv layer is named as `split_qkv` leaves it. `mlp` is that of the block, beside the attention.
    """
    blocks = []
    for name, module in encoder.named_modules():
        if hasattr(module, "qkv"):
            layers = {part: [f"{name}.qkv.{part}"] for part in PROJECTIONS}
        elif all(hasattr(module, f"{part}_proj") for part in PROJECTIONS):
            layers = {part: [f"{name}.{part}_proj"] for part in PROJECTIONS}
        else:
            continue
        layers["proj"] = [f"{name}.{output}" for output in ("proj", "o_proj") if hasattr(module, output)]
        parent = name.rpartition(".")[0]
        mlp = encoder.get_submodule(parent)._modules.get("mlp")
        inside = mlp.named_modules() if mlp is not None else ()
        layers["mlp"] = [f"{parent}.mlp.{inner}" for inner, layer in inside if isinstance(layer, nn.Linear)]
        blocks.append(layers)
    return blocks


def split_qkv(encoder: nn.Module) -> nn.Module:
    """Replace every fused qkv layer of `encoder` in place by a `SplitQKV`; return `encoder`."""
    for _, attention in attentions(encoder):
        if isinstance(attention.qkv, nn.Linear):
            head_by_head = hasattr(attention, "attention_biases")
            attention.qkv = SplitQKV(attention.qkv, attention.num_heads if head_by_head else None)
    return encoder


def fuse_qkv(encoder: nn.Module) -> nn.Module:
    """Invert `split_qkv`, in place; return `encoder`."""
    for _, attention in attentions(encoder):
        if isinstance(attention.qkv, SplitQKV):
            attention.qkv = attention.qkv.fuse()
    return encoder
