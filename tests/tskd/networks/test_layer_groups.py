"""Layer-wise learning rates and frozen modules, on the networks of the student's configs."""

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNETR
from torch import nn

from tests.bundles.conftest import BUNDLES
from tskd.errors import TskdError
from tskd.networks import TappedNetwork, batch_norm_momentum, frozen, parameter_groups

CONFIGS = BUNDLES / "student_segmentation" / "configs"
STUDENTS = ("train", "segresnet", "basic_unet", "flexible_unet", "lite_unet", "swin_unetr")


def student(name: str) -> tuple[nn.Module, list[str]]:
    """Network and layers of a config."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), *([] if name == "train" else [str(CONFIGS / f"{name}.json")])])
    parser["image_size"] = 64
    return parser.get_parsed_content("network_def"), parser.get_parsed_content("layers")


def rates(network: nn.Module, groups: list[dict]) -> dict[str, float]:
    """Parameter name -> its learning rate; each parameter is in one group."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    rate_list = [(names[id(parameter)], group["lr"]) for group in groups for parameter in group["params"]]
    assert len(dict(rate_list)) == len(rate_list)
    return dict(rate_list)


def test_unetr_learns_faster_from_patch_embedding_to_decoder():
    network, layers = student("train")
    rate = rates(network, parameter_groups(network, 0.1, layers, 0.5))
    assert len(rate) == len(list(network.parameters()))
    assert rate["vit.patch_embedding.position_embeddings"] == pytest.approx(0.1 * 0.5**13)
    for block in range(12):
        (block_rate,) = {value for name, value in rate.items() if name.startswith(f"vit.blocks.{block}.")}
        assert block_rate == pytest.approx(0.1 * 0.5 ** (12 - block))
    assert {v for name, v in rate.items() if not name.startswith(("vit.patch", "vit.blocks"))} == {0.1}


@pytest.mark.parametrize("name", STUDENTS)
def test_layers_of_each_student_are_in_the_order_they_run(name):
    network, layers = student(name)
    groups = parameter_groups(network, 1.0, layers, 0.9)
    assert [group["lr"] for group in groups] == sorted(group["lr"] for group in groups)
    assert len(groups) == len(layers) + 1
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    order: list[str] = []
    hooks = [network.get_submodule(x).register_forward_hook(lambda *_, x=x: order.append(x)) for x in layers]
    network.eval()(torch.zeros(1, 1, 64, 64))
    assert hooks
    assert list(dict.fromkeys(order)) == layers


def test_without_decay_one_rate_for_what_is_trained():
    network, layers = student("train")
    frozen(network, ["vit.patch_embedding", "vit.blocks.0"])
    (group,) = parameter_groups(network, 0.1, layers)
    names = rates(network, [group])
    assert not [name for name in names if name.startswith(("vit.patch_embedding.", "vit.blocks.0."))]
    assert any(name.startswith("vit.blocks.1.") for name in names)


def test_a_step_leaves_frozen_weights_and_moves_early_layers_less():
    torch.manual_seed(0)
    network, layers = student("basic_unet")
    frozen(network, ["conv_0"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(parameter_groups(network, 0.01, layers, 0.5))  # Adam's first step is the rate
    network(torch.rand(2, 1, 64, 64)).square().mean().backward()
    optimizer.step()
    moved = {name: (value - before[name]).abs().max().item() for name, value in network.state_dict().items()}
    assert max(value for name, value in moved.items() if name.startswith("conv_0.")) == 0
    assert moved["down_1.convs.conv_0.conv.weight"] == pytest.approx(0.01 * 0.5**4, rel=0.01)
    assert moved["final_conv.weight"] == pytest.approx(0.01, rel=0.01)


def test_a_tapped_network_has_the_names_of_the_student():
    network, layers = student("train")
    tapped = TappedNetwork(network, "vit.norm", 4, (1, 1, 64, 64))
    rate = rates(tapped, parameter_groups(tapped, 0.1, layers, 0.5))
    assert rate["network.vit.blocks.11.mlp.linear1.weight"] == pytest.approx(0.05)
    assert rate["projection.weight"] == 0.1


def test_batch_norms_follow_as_fast_as_they_are_told():
    network, _ = student("flexible_unet")
    names = set(network.state_dict())
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01, 0.1}
    batch_norm_momentum(network, None)
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01, 0.1}
    batch_norm_momentum(network, 0.5)
    x = torch.rand(4, 1, 64, 64)
    for _ in range(20):
        network.train()(x)
    norm = network.get_submodule("encoder._bn0")
    seen = []
    hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3))))
    network.train()(x)
    hook.remove()
    torch.testing.assert_close(norm.running_mean, seen[0], rtol=1e-3, atol=1e-3)
    assert set(network.state_dict()) == names


def test_errors():
    with pytest.raises(TskdError, match=r"batch_norm_momentum: expected a number above 0 .*found 2"):
        batch_norm_momentum(nn.Identity(), 2)
    network = UNETR(1, 2, (32, 32), hidden_size=12, mlp_dim=12, num_heads=3, feature_size=8, spatial_dims=2)
    with pytest.raises(TskdError, match=r"freeze: UNETR has no module 'vit.block.0'; did you mean vit.blocks.0"):
        frozen(network, ["vit.block.0"])
    with pytest.raises(TskdError, match=r"layers: UNETR has no module 'stem'.* Its modules .*: vit, vit.patch_"):
        parameter_groups(network, 0.1, ["stem"], 0.5)
    with pytest.raises(TskdError, match=r"at most 1, or null, found 1\.5"):
        parameter_groups(network, 0.1, [], 1.5)
    with pytest.raises(TskdError, match="expected something left to train"):
        frozen(network, [name for name, _ in network.named_children()])


def test_a_vit_has_a_rate_of_its_own():
    network, layers = student("train")
    tapped = TappedNetwork(network, "vit.norm", 16, (1, 1, 64, 64))
    rate_list = rates(tapped, parameter_groups(tapped, 0.1, layers, vit_lr_mult=0.05))
    for name, rate in rate_list.items():
        assert rate == pytest.approx(0.005 if name.startswith("network.vit.") else 0.1), name
    with_decay = rates(tapped, parameter_groups(tapped, 0.1, layers, 0.5, 0.05))
    assert with_decay["network.vit.blocks.11.norm1.weight"] == pytest.approx(0.005 * 0.5)
    assert len(parameter_groups(student("basic_unet")[0], 0.1, vit_lr_mult=0.05)) == 1
    with pytest.raises(TskdError, match="vit_lr_mult: expected a number above 0, found 0"):
        parameter_groups(network, 0.1, vit_lr_mult=0)
