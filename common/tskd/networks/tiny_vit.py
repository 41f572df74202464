"""TinyViT image encoder of MobileSAM and LiteMedSAM, for any input size.

Architecture: TinyViT-5M (Wu et al., ECCV 2022, arXiv 2207.10666) as changed by MobileSAM (Zhang et al., arXiv
2306.14289) and LiteMedSAM; parameter names are theirs, so that their checkpoints load strictly (without the ImageNet
head).

Two differences to the published code, on purpose:
- relative position biases are looked up from the parameter in each forward; nothing is cached at `.eval()`, so weights
  may be loaded in either mode;
- batch norm always uses the stored statistics, also in training mode. Checkpoints may have them folded into the
  convolutions, and a handful of medical slices is no batch to estimate statistics from.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tskd.errors import TskdError


class ConvBN(nn.Sequential):
    """Convolution without bias (`c`) and batch norm with fixed statistics (`bn`)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x in x H x W to B x out x H/stride x W/stride."""
        bn = self.bn
        return F.batch_norm(self.c(x), bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps)


class PatchEmbed(nn.Module):
    """Two convolutions to `dim` channels: 3x3 of stride 2 each (patch_stride 4), or 1x1 (patch_stride 1)."""

    def __init__(self, in_channels: int, dim: int, patch_stride: int) -> None:
        super().__init__()
        kernel, stride = (3, 2) if patch_stride == 4 else (1, 1)
        self.seq = nn.Sequential(
            ConvBN(in_channels, dim // 2, kernel, stride), nn.GELU(), ConvBN(dim // 2, dim, kernel, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map B x in x H x W to B x dim x H/patch_stride x W/patch_stride."""
        return self.seq(x)


class MBConv(nn.Module):
    """Inverted bottleneck: 1x1 expansion, 3x3 depthwise, 1x1 projection, with a shortcut."""

    def __init__(self, dim: int, expand: int = 4) -> None:
        super().__init__()
        self.conv1 = ConvBN(dim, dim * expand)
        self.conv2 = ConvBN(dim * expand, dim * expand, 3, groups=dim * expand)
        self.conv3 = ConvBN(dim * expand, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape B x dim x H x W."""
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """Change of width, and of resolution by `stride`, between two stages."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(dim, out_dim)
        self.conv2 = ConvBN(out_dim, out_dim, 3, stride, groups=out_dim)
        self.conv3 = ConvBN(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x dim x H x W to B x out_dim x H/stride x W/stride."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class Attention(nn.Module):
    """Self-attention inside one window, with a learned bias for each |dy|, |dx|.

    Attributes:
        qkv: linear layer whose output is, head by head, [q, k, v] of that head (num_heads x 3 x key_dim features).
        num_heads: number of heads.
        key_dim: features of q, of k and of v in a head.
    """

    attention_bias_idxs: Tensor

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key_dim = dim // num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        side = torch.arange(window)
        y, x = side.repeat_interleave(window), side.repeat(window)
        offsets = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("attention_bias_idxs", offsets, persistent=False)  # (w*w) x (w*w)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape windows x (w*w) x dim."""
        windows, tokens, dim = x.shape
        qkv = self.qkv(self.norm(x)).view(windows, tokens, self.num_heads, 3 * self.key_dim).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=-1)
        bias = self.attention_biases[:, self.attention_bias_idxs].to(q.dtype)  # heads x tokens x tokens
        if torch.compiler.is_compiling():
            # on CUDA Inductor's layout of the padded bias is one that the backward of the fused kernel refuses
            out = (q * self.key_dim**-0.5 @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return self.proj(out.transpose(1, 2).reshape(windows, tokens, dim))


class Mlp(nn.Module):
    """Layer norm and two linear layers."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ... x dim."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Window attention, 3x3 depthwise convolution, MLP."""

    def __init__(self, dim: int, num_heads: int, window: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(dim, num_heads, window)
        self.mlp = Mlp(dim, dim * mlp_ratio)
        self.local_conv = ConvBN(dim, dim, 3, groups=dim)

    def _window_attention(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        size = self.window
        pad_h, pad_w = -h % size, -w % size
        if pad_h or pad_w:
            x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))  # zeros before the norm in `attn`, as in the published code
        rows, columns = (h + pad_h) // size, (w + pad_w) // size
        x = x.reshape(b, rows, size, columns, size, c).transpose(2, 3).reshape(-1, size * size, c)
        x = self.attn(x).view(b, rows, columns, size, size, c).transpose(2, 3)
        return x.reshape(b, rows * size, columns * size, c)[:, :h, :w]

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape B x dim x H x W."""
        x = x + self._window_attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x)
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width, then the change to the next stage's."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, checkpointing: bool = False) -> Tensor:
        """Map B x dim x H x W to the next stage's input."""
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if checkpointing else block(x)
        return x if self.downsample is None else self.downsample(x)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of B x C x H x W."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape B x C x H x W."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """TinyViT-5M with SAM's neck: B x 3 x H x W to an embedding B x 256 x H/stride x W/stride.

    Args:
        patch_stride: 4 for MobileSAM (total stride 16) or 1 for LiteMedSAM (total stride 4).
        dims: widths of the four stages.
        depths: blocks in each stage.
        num_heads: attention heads in each stage (the first stage is convolutional and has none).
        windows: window sides in each stage, in tokens.
        out_channels: channels of the embedding.
        gradient_checkpointing: recompute each block in the backward pass, to save memory in training.
    """

    def __init__(
        self,
        patch_stride: int = 4,
        dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        out_channels: int = 256,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if patch_stride not in (1, 4):
            raise TskdError(f"patch_stride must be 4 (MobileSAM) or 1 (LiteMedSAM), found {patch_stride!r}")
        self.stride = patch_stride * 4
        self.gradient_checkpointing = gradient_checkpointing
        self.patch_embed = PatchEmbed(3, dims[0], patch_stride)
        self.layers = nn.ModuleList()
        for i, (dim, depth, heads, window) in enumerate(zip(dims, depths, num_heads, windows, strict=True)):
            blocks = [MBConv(dim) if i == 0 else TinyViTBlock(dim, heads, window) for _ in range(depth)]
            # MobileSAM keeps the resolution into the last stage, to end at stride 16 as SAM does
            merge = PatchMerging(dim, dims[i + 1], 1 if i == len(dims) - 2 else 2) if i < len(dims) - 1 else None
            self.layers.append(Stage(blocks, merge))
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], out_channels, 1, bias=False),
            LayerNorm2d(out_channels, eps=1e-6),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels, eps=1e-6),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map B x 3 x H x W (H, W multiples of `stride`) to B x out_channels x H/stride x W/stride."""
        checkpointing = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        x = self.patch_embed(
            x.contiguous(memory_format=torch.channels_last)
        )  # then B x H x W x C is a view, not a copy
        for stage in self.layers:
            x = stage(x, checkpointing)
        return self.neck(x)
