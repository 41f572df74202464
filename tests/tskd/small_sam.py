"""Small prompt-free SAMs for the tests: the same random network at each call, and one that has learned something."""

from typing import Any

import torch
from torch import nn

from tskd.networks import PromptFreeSam, build_sam

VIT = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "global_attn_indexes": [1], "window_size": 3,
}  # fmt: skip
VFMS = ("sam_vit_b", "mobile_sam")


def fresh(vfm: str, **options: Any) -> PromptFreeSam:
    """The same random network at each call, with no zeros in it."""
    torch.manual_seed(0)
    network = build_sam(vfm, 3, 64, config=VIT if vfm == "sam_vit_b" else None, **options)
    assert isinstance(network, PromptFreeSam)
    for name, parameter in network.named_parameters():
        if "rel_pos" in name or "attention_biases" in name or name.endswith("qkv.bias"):
            nn.init.normal_(parameter, std=0.1)
    return network


def trained(network: nn.Module, x: torch.Tensor, steps: int = 3) -> nn.Module:
    """`network` after a few large steps on a fixed target."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    target = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        (network.train()(x) - target).square().mean().backward()
        optimizer.step()
    return network.eval()
