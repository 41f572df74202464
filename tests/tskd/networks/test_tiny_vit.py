"""TinyViT equals its written-out form and, on published weights, the published code."""

import math

import pytest
import torch
import torch.nn.functional as F

from tskd.errors import TskdError
from tskd.networks import TinyViT, build_sam, load_pretrained
from tskd.networks.tiny_vit import Attention, ConvBN, TinyViTBlock


def waves(size: int) -> torch.Tensor:
    """A fixed colour image, 1 x 3 x size x size in [0, 1]."""
    i = torch.arange(float(size))
    return torch.stack([0.5 + 0.5 * torch.sin(0.1 * i[:, None] + 0.2 * i + c) for c in range(3)])[None]


def windows_one_by_one(block: TinyViTBlock, x: torch.Tensor) -> torch.Tensor:
    """Attention of a block written out: each window, head and pair of tokens, after padding with zeros."""
    attn, size = block.attn, block.window
    _, _, height, width = x.shape
    padded = F.pad(x, (0, -width % size, 0, -height % size))[0].permute(1, 2, 0)
    out = torch.zeros_like(padded)
    positions = [(i, j) for i in range(size) for j in range(size)]
    distance = [[abs(a - c) * size + abs(b - d) for c, d in positions] for a, b in positions]
    for top in range(0, padded.shape[0], size):
        for left in range(0, padded.shape[1], size):
            tokens = attn.norm(padded[top : top + size, left : left + size].reshape(size * size, -1))
            features = attn.qkv(tokens)
            heads = []
            for h in range(attn.num_heads):
                q, k, v = features[:, h * 3 * attn.key_dim : (h + 1) * 3 * attn.key_dim].split(attn.key_dim, dim=1)
                scores = q @ k.T / math.sqrt(attn.key_dim) + attn.attention_biases[h][torch.tensor(distance)]
                heads.append(scores.softmax(dim=1) @ v)
            out[top : top + size, left : left + size] = attn.proj(torch.cat(heads, dim=1)).view(size, size, -1)
    return out[:height, :width].permute(2, 0, 1)[None]


@pytest.mark.parametrize("shape", [(6, 6), (5, 7), (3, 3), (2, 10)])
def test_window_attention_equals_the_written_out_form(shape):
    torch.manual_seed(0)
    block = TinyViTBlock(dim=16, num_heads=2, window=3)
    torch.nn.init.normal_(block.attn.attention_biases)
    x = torch.randn(1, 16, *shape)
    windowed = block._window_attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(windowed, windows_one_by_one(block, x), atol=1e-5, rtol=1e-4)


def test_compiled_attention_is_the_same_without_the_fused_kernel():
    """On CUDA a compiled backward of the fused kernel stops with `(*bias): last dimension must be contiguous`."""
    torch.manual_seed(0)
    attention, code = Attention(dim=16, num_heads=2, window=3), []
    torch.nn.init.normal_(attention.attention_biases)
    x = torch.randn(4, 9, 16)

    def backend(graph, example_inputs):
        code.append(graph.code)
        return graph.forward

    outputs = []
    for forward in (attention, torch.compile(attention, backend=backend)):
        attention.zero_grad()
        out = forward(x)
        out.square().sum().backward()
        outputs.append([out, *(p.grad for p in attention.parameters())])
    torch.testing.assert_close(outputs[1], outputs[0])
    assert len(code) == 1
    assert "softmax" in code[0]
    assert "scaled_dot_product_attention" not in code[0]


@pytest.mark.parametrize(
    ("patch_stride", "size", "grid"), [(4, (1024, 1024), (64, 64)), (1, (256, 256), (64, 64)), (4, (96, 160), (6, 10))]
)
def test_shapes(patch_stride, size, grid):
    with torch.device("meta"):
        encoder = TinyViT(patch_stride)
        assert encoder(torch.rand(2, 3, *size)).shape == (2, 256, *grid)
    assert encoder.stride == 4 * patch_stride


def test_attention_declares_the_layout_that_adapters_split():
    attention = Attention(dim=160, num_heads=5, window=14)
    assert (attention.num_heads, attention.key_dim) == (5, 32)
    assert attention.qkv.out_features == 3 * attention.num_heads * attention.key_dim


def test_biases_are_never_stale():
    torch.manual_seed(0)
    attention = Attention(dim=8, num_heads=2, window=2).eval()
    x = torch.randn(3, 4, 8)
    before = attention(x)
    attention.load_state_dict({**attention.state_dict(), "attention_biases": torch.randn(2, 4)})
    loaded_in_eval = attention(x)
    assert not torch.allclose(before, loaded_in_eval)
    assert torch.equal(loaded_in_eval, attention.train()(x))


def test_batch_norm_uses_stored_statistics_in_both_modes():
    layer = ConvBN(3, 8, kernel=3).train()
    layer.bn.running_mean.normal_()
    layer.bn.running_var.uniform_(0.5, 2)
    mean, x = layer.bn.running_mean.clone(), torch.rand(2, 3, 8, 8)
    trained = layer(x)
    assert torch.equal(layer.bn.running_mean, mean)
    torch.testing.assert_close(trained, torch.nn.Sequential.forward(layer.eval(), x))


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    encoder = TinyViT(4, dims=(8, 16, 16, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), windows=(3, 3, 3, 3))
    x, gradients = torch.rand(1, 3, 64, 64), []
    for encoder.gradient_checkpointing in (False, True):
        encoder.zero_grad()
        encoder(x).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_patch_stride_is_checked():
    with pytest.raises(TskdError, match=r"patch_stride must be 4 .* or 1 .*, found 2"):
        TinyViT(patch_stride=2)


@pytest.mark.parametrize("training", [False, True])
def test_mobile_sam_gives_the_published_codes_output(shared, training):
    """Recorded from MobileSAM's published TinyViT code, set up for 256 pixels, on the same weights."""
    network = build_sam("mobile_sam", 4, 256).train(training)
    load_pretrained(network, shared / "weights" / "mobile_sam.pth")
    with torch.no_grad():
        out = network.forward_features(waves(256))
    embedding, logits = out["embedding"], out["logits_low"]
    assert embedding.shape == (1, 256, 16, 16)
    assert embedding.mean().item() == pytest.approx(-0.002507, abs=1e-5)
    assert embedding.std().item() == pytest.approx(0.087188, abs=1e-5)
    expected = torch.tensor([0.068370, 0.044373, -0.042483, 0.028909])
    torch.testing.assert_close(embedding[0, :4, 0, 0], expected, atol=1e-5, rtol=0)
    expected = torch.tensor([-0.112848, -0.105593, -0.121754, -0.110381])
    torch.testing.assert_close(embedding[0, 100, 8, 3:7], expected, atol=1e-5, rtol=0)
    expected = torch.tensor([0.350678, -3.186895, -0.750487, 0.080394])
    torch.testing.assert_close(logits.mean((0, 2, 3)), expected, atol=1e-4, rtol=0)
