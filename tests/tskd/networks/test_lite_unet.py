"""The U-Net with an EfficientNet-Lite0 encoder against a plain reference, its export, and the loading of weights."""

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tskd.errors import TskdError
from tskd.networks import LiteUNet, lite_unet, load_lite_encoder

# EfficientNet-Lite0 as the published builder writes it: repeats, kernel, stride, expansion, input, output
STAGES = ["r1_k3_s1_e1_i32_o16", "r2_k3_s2_e6_i16_o24", "r2_k5_s2_e6_i24_o40", "r3_k3_s2_e6_i40_o80",
          "r3_k5_s1_e6_i80_o112", "r4_k5_s2_e6_i112_o192", "r1_k3_s1_e6_i192_o320"]  # fmt: skip


def random_checkpoint() -> dict[str, Tensor]:
    """Random weights in the published layout: the encoder's, with statistics that are not 0 and 1, and the head's."""
    torch.manual_seed(0)
    state = {key: value.clone() for key, value in LiteUNet().encoder.state_dict().items()}
    for key, value in state.items():
        if key.endswith(("running_mean", "bias")):
            value.normal_(0, 0.3)
        elif key.endswith(("running_var", "weight")) and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    head = {
        "_conv_head.weight": torch.zeros(1280, 320, 1, 1),
        "_bn1.weight": torch.zeros(1280),
        "_fc.bias": torch.zeros(1000),
    }
    return {**state, **head}


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Output of the last block, written from the published description alone, in the checkpoint's names."""

    def conv(x: Tensor, name: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = state[f"{name}.weight"].double()
        total = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)  # TensorFlow's "same"
        x = functional.pad(x, [total // 2, total - total // 2] * 2)
        return functional.conv2d(x, weight, stride=stride, groups=x.shape[1] if depthwise else 1)

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias, mean, var = (
            state[f"{name}.{part}"].double().view(1, -1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = norm(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    block = 0
    for stage in STAGES:
        repeats, kernel, stride, expansion, _, out = (int(part[1:]) for part in stage.split("_"))
        for repeat in range(repeats):
            name, y = f"_blocks.{block}", x
            assert state[f"{name}._depthwise_conv.weight"].shape[-1] == kernel
            if expansion > 1:
                y = norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
            y = conv(y, f"{name}._depthwise_conv", 1 if repeat else stride, depthwise=True)
            y = norm(conv(norm(y, f"{name}._bn1").clamp(0, 6), f"{name}._project_conv"), f"{name}._bn2")
            x = x + y if repeat else y
            assert x.shape[1] == out
            block += 1
    return x


def test_features_equal_a_plain_reference(tmp_path):
    torch.save(random_checkpoint(), tmp_path / "lite0.pth")
    network = load_lite_encoder(LiteUNet(), tmp_path / "lite0.pth").double().eval()
    x = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    features = network.encoder(x)
    assert [tuple(f.shape[1:]) for f in features] == [
        (16, 48, 48),
        (24, 24, 24),
        (40, 12, 12),
        (112, 6, 6),
        (320, 3, 3),
    ]
    torch.testing.assert_close(features[-1], reference(random_checkpoint(), x))


def test_normalises_inside_and_repeats_one_channel():
    network = LiteUNet(1, 5).eval()
    image = torch.rand(2, 1, 64, 96)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = []
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert network(image).shape == (2, 5, 64, 96)
    torch.testing.assert_close(seen[0], (image.repeat(1, 3, 1, 1) - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))


def test_every_parameter_learns_and_the_size_is_as_documented():
    network = LiteUNet(3, 2)
    network(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert 3.7e6 < sum(p.numel() for p in network.parameters()) < 3.9e6


SUBPIXEL = {"decoder_channels": (128, 64, 32, 16), "subpixel": True}


@pytest.mark.parametrize("channels", [1, 3])
def test_subpixel_decoder_sees_and_predicts_single_pixels(channels):
    network = LiteUNet(channels, 2, **SUBPIXEL).eval()
    x = torch.rand(1, channels, 64, 96)
    logits = network(x)
    assert logits.shape == (1, 2, 64, 96)
    for row, column in ((20, 30), (20, 31), (21, 30)):  # of one cell of 2 x 2
        changed = x.clone()
        changed[:, :, row, column] += 1
        difference = (network(changed) - logits).abs().sum(1)[0]
        assert difference[row, column] > 0
        assert len(difference[20:22, 30:32].unique()) == 4
    network.train()(torch.rand(2, channels, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("options", [{}, SUBPIXEL])
def test_scripts_exactly_and_needs_only_torch(options):
    network = LiteUNet(1, 5, **options).eval()
    scripted, image = torch.jit.script(network), torch.rand(2, 1, 64, 64)
    assert torch.equal(scripted(image), network(image))
    tree = ast.parse(Path(lite_unet.__file__).read_text())
    imports = [
        n.module if isinstance(n, ast.ImportFrom) else n.names[0].name
        for n in ast.walk(tree)
        if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    assert {name.split(".")[0] for name in imports} == {"torch", "collections"}


@pytest.mark.parametrize(
    ("key", "message"), [("_blocks.3._bn1.bias", "missing _blocks.3._bn1.bias"), ("extra", "unexpected extra")]
)
def test_other_keys_are_refused_by_name(tmp_path, key, message):
    state = random_checkpoint()
    state.pop(key) if key in state else state.update({key: torch.zeros(1)})
    torch.save(state, tmp_path / "lite0.pth")
    with pytest.raises(TskdError, match=message):
        load_lite_encoder(LiteUNet(), tmp_path / "lite0.pth")


def test_wrong_channels():
    with pytest.raises(ValueError, match="expected 1, 3 or a larger odd number, found 4"):
        LiteUNet(4, 2)
    with pytest.raises(ValueError, match="expected 5 numbers"):
        LiteUNet(3, 2, (16, 16))
    with pytest.raises(ValueError, match="expected 4 numbers"):
        LiteUNet(3, 2, subpixel=True)
    with pytest.raises(TskdError, match="found Linear"):
        load_lite_encoder(torch.nn.Linear(1, 1), "random")


def test_a_slice_between_neighbours_like_itself_is_seen_as_alone():
    one, three = LiteUNet(1, 2).eval(), LiteUNet(3, 2).eval()
    three.load_state_dict(one.state_dict())  # weights of one channel are a start for three
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(three(x.expand(-1, 3, -1, -1)), one(x))
        different = three(torch.cat([torch.rand_like(x), x, torch.rand_like(x)], dim=1))
    assert not torch.allclose(different, one(x))


@pytest.mark.parametrize("channels", [1, 3, 5, 7])
def test_more_neighbours_share_the_pretrained_weights(tmp_path, channels):
    """As many times the same slice is seen by the encoder as the slice alone; 1 and 3 have the very weights."""
    state = random_checkpoint()
    torch.save(state, tmp_path / "lite0.pth")
    one = load_lite_encoder(LiteUNet(1, 2), tmp_path / "lite0.pth").eval()
    more = load_lite_encoder(LiteUNet(channels, 2), tmp_path / "lite0.pth").eval()
    if channels < 5:
        assert torch.equal(more.encoder._conv_stem.weight, state["_conv_stem.weight"].float())
    seen = {}
    for network in (one, more):
        network.encoder.register_forward_hook(lambda module, _, features: seen.update({module: features}))
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        one(x)
        assert more(x.expand(-1, channels, -1, -1)).shape == (2, 2, 32, 32)
        for expected, found in zip(seen[one.encoder], seen[more.encoder], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        image = torch.rand(1, channels, 32, 32)
        moved = [
            float((more(image.index_fill(1, torch.tensor([c]), 0)) - more(image)).abs().max()) for c in range(channels)
        ]
    assert min(moved) > 0


def test_dropout_acts_in_training_alone_and_adds_no_weight():
    plain, dropped = LiteUNet(1, 3), LiteUNet(1, 3, dropout=0.5)
    dropped.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain.eval()(x), dropped.eval()(x))
        first, second = dropped.train()(x[:1, :, :32, :32]), dropped(x[:1, :, :32, :32])
    assert not torch.equal(first, second)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in dropped.state_dict().items())


def test_no_weight_is_dead():
    network = LiteUNet(1, 3)
    network(torch.rand(2, 1, 64, 64)).sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
