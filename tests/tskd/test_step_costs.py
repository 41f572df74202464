"""Costs that are counted without computing: against numbers done by hand, and against what torch keeps."""

from functools import partial

import pytest
import torch
from torch import nn

from tskd.lora import prepare_fine_tuning
from tskd.networks import build_sam
from tskd.step_costs import step_cost


def test_by_hand():
    cost = step_cost(lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Sigmoid(), nn.Conv2d(4, 2, 1)), (1, 8, 8))
    assert (cost.parameters, cost.trainable) == (4 * 9 + 4 + 8 + 2,) * 2
    assert cost.gmac == pytest.approx((64 * 4 * 9 + 64 * 8) / 1e9)
    assert cost.activations == 4 * (64 + 4 * 64)  # the image and the sigmoid's result, which both neighbours keep
    assert cost.states == 3 * 4 * cost.parameters
    assert cost.memory(3) - cost.memory(1) == 2 * cost.activations
    assert cost.memory(2, half=True) == cost.weights + cost.states + cost.activations
    assert cost.step_gmac(2) == pytest.approx(6 * cost.gmac)


def test_as_torch_keeps_it():
    """An encoder with attention: the count on the meta device is that of a real forward pass (fused kernel)."""

    def build() -> nn.Module:
        torch.manual_seed(0)
        settings = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        return prepare_fine_tuning(build_sam("dinov2_small", 3, 112, config=settings), rank=2, alpha=2)

    network, kept = build().train(), {}
    known = {value.untyped_storage().data_ptr() for value in (*network.parameters(), *network.buffers())}

    def pack(value: torch.Tensor) -> torch.Tensor:
        if value.untyped_storage().data_ptr() not in known:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        output = network(torch.rand(1, 1, 112, 112))
    assert output.shape == (1, 3, 112, 112)
    assert step_cost(build, (1, 112, 112)).activations == pytest.approx(sum(kept.values()), rel=0.1)


def test_sam_is_counted_as_it_was_measured():
    """GMAC of MobileSAM and SAM ViT-B at 1024 px with their decoders: 38.8 and 486 of the encoders, measured."""
    builders = [partial(build_sam, vfm, 5, 1024) for vfm in ("mobile_sam", "sam_vit_b")]
    counted = [step_cost(build, (1, 1024, 1024)) for build in builders]
    assert [round(cost.gmac) for cost in counted] == [41, 488]
    assert [round(cost.parameters / 1e6) for cost in counted] == [10, 94]
