"""U-Net with an EfficientNet-Lite0 encoder; imports nothing but torch, so that a bundle can carry this file."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STEM = 32
# EfficientNet-Lite0: (kernel, stride, expansion, output channels) of each of its 16 blocks
BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24), (3, 1, 6, 24),
    (5, 2, 6, 40), (5, 1, 6, 40),
    (3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80),
    (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
    (5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
    (3, 1, 6, 320),
)  # fmt: skip
SKIPS = (0, 2, 4, 10)  # blocks whose outputs, at 1/2, 1/4, 1/8 and 1/16 of the side, the decoder reads
EPSILON = 1e-3  # of EfficientNet's batch norms


class SamePadConv(nn.Conv2d):
    """Convolution padded as TensorFlow pads "same" on even sizes: with stride 2 one more pixel behind than before."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        same = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride, same, groups=groups, bias=False)
        before = (kernel - stride) // 2
        self.pad = [before, kernel - stride - before] * 2
        self.pads = stride > 1  # otherwise the convolution pads by itself, without a copy

    def forward(self, x: Tensor) -> Tensor:
        """Map B x in_channels x H x W to B x out_channels x H / stride x W / stride."""
        if self.pads:
            x = functional.pad(x, self.pad)
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)


class InvertedResidual(nn.Module):
    """MBConv block without squeeze-and-excitation: expand, depthwise, project; names as in the published weights."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expands = expansion != 1
        self.adds = stride == 1 and in_channels == out_channels
        self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False) if self.expands else nn.Identity()
        self._bn0 = nn.BatchNorm2d(inner, EPSILON) if self.expands else nn.Identity()
        self._depthwise_conv = SamePadConv(inner, inner, kernel, stride, groups=inner)
        self._bn1 = nn.BatchNorm2d(inner, EPSILON)
        self._project_conv = nn.Conv2d(inner, out_channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out_channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x in_channels x H x W to B x out_channels x H / stride x W / stride."""
        y = x
        if self.expands:
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0 without its head (arXiv 1905.11946): 3.0 M parameters, ReLU6, no squeeze-and-excitation."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self._conv_stem = SamePadConv(in_channels, STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(STEM, EPSILON)
        channels = [STEM, *(block[3] for block in BLOCKS)]
        self._blocks = nn.ModuleList(
            InvertedResidual(channels[i], out, kernel, stride, expansion)
            for i, (kernel, stride, expansion, out) in enumerate(BLOCKS)
        )
        self.skips = list(SKIPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return feature maps of the normalised image B x C x H x W: 16, 24, 40, 112, 320 channels at 1/2 to 1/32."""
        features: list[Tensor] = []
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self.skips:
                features.append(x)
        features.append(x)
        return features


class DecoderBlock(nn.Module):
    """Nearest-neighbour upsampling to the skip connection's size, concatenation, two 3 x 3 convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map B x in_channels x h x w and B x skip_channels x H x W to B x out_channels x H x W."""
        x = functional.interpolate(x, size=skip.shape[2:], mode="nearest")
        return self.convs(torch.cat([x, skip], dim=1))


def imagenet_channels(in_channels: int) -> list[int]:
    """Return for each input channel the one of ImageNet's three whose statistics and weights it has.

    Of three they are these; of more the first half is red, the one in the middle green, and the last half blue.
    """
    half = in_channels // 2
    return [0] * half + [1] + [2] * half if in_channels > 1 else [0, 1, 2]


def spread_stem(weight: Tensor, in_channels: int) -> Tensor:
    """Return a first convolution's weights O x 3 x k x k for another number of channels, each sharing one of the three.

    As many times the same slice gives what three times gave; for 1 and 3 channels the weights are those.
    """
    of = torch.tensor(imagenet_channels(in_channels), device=weight.device)
    return weight[:, of] / torch.bincount(of)[of].to(weight.dtype).view(1, -1, 1, 1)


class LiteUNet(nn.Module):
    """U-Net with an EfficientNet-Lite0 encoder, 3.8 M parameters; made for int8 (ReLU6, no squeeze-and-excitation).

    The image is normalised inside by ImageNet's mean and standard deviation; the decoder's last block reads it again,
    so that thin structures are seen at full resolution.

    Args:
        in_channels: 1 (repeated to three), 3 (colours, or a grey slice between its neighbours), or a larger odd number
            (a slice between more neighbours). Three times the same slice gives what the slice alone does, so that
            weights of one channel are a start for three; `spread_stem` has those of ImageNet for more.
        out_channels: classes, with the background.
        decoder_channels: of the decoder blocks, from 1/16 of the side to the whole (five), or to the half (four).
        dropout: share of the decoder's last channels that is dropped in training mode, for Monte-Carlo dropout as MONAI
            Label's scores have it: batch norms then keep their running statistics in that mode, too.
        subpixel: decode at half the side, where the last block reads each 2 x 2 pixels of the image as channels, and
            the head predicts 2 x 2 pixels at once (arXiv 1609.05158); faster, above all at 256 pixels and more.

    Shape:
        B x in_channels x H x W in [0, 1] to logits B x out_channels x H x W; H and W multiples of 32.

    Raises:
        ValueError: an even number of channels, or not five decoder blocks (four with `subpixel`).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 2,
        decoder_channels: Sequence[int] = (128, 64, 32, 16, 16),
        dropout: float = 0.0,
        subpixel: bool = False,
    ) -> None:
        super().__init__()
        if in_channels < 1 or in_channels % 2 == 0:
            raise ValueError(f"in_channels: expected 1, 3 or a larger odd number, found {in_channels}")
        blocks = len(SKIPS) + (not subpixel)
        if len(decoder_channels) != blocks:
            raise ValueError(f"decoder_channels: expected {blocks} numbers, found {list(decoder_channels)}")
        of = imagenet_channels(in_channels)
        self.channels = len(of)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[of].view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[of].view(1, -1, 1, 1), persistent=False)
        self.encoder = LiteEncoder(self.channels)
        self.subpixel = subpixel
        skips = [*(BLOCKS[i][3] for i in reversed(SKIPS)), self.channels]
        if subpixel:
            skips = [*skips[:-2], skips[-2] + 4 * in_channels]
        inputs = [BLOCKS[-1][3], *decoder_channels[:-1]]
        self.decoder = nn.ModuleList(map(DecoderBlock, inputs, skips, decoder_channels))
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(decoder_channels[-1], out_channels * 4 if subpixel else out_channels, 1)

    def train(self, mode: bool = True) -> "LiteUNet":
        """Set training mode; with `dropout`, the batch norms stay in evaluation mode."""
        super().train(mode)
        if mode and self.dropout.p > 0:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the image."""
        image = (x.expand(-1, self.channels, -1, -1) - self.mean) / self.std
        features = [image] + self.encoder(image)  # noqa: RUF005 (TorchScript knows no unpacking)
        if self.subpixel:
            pixels = functional.pixel_unshuffle(x, 2).to(features[1].dtype)
            features[1] = torch.cat([features[1], pixels], dim=1)
        y = features[-1]
        for i, block in enumerate(self.decoder):
            y = block(y, features[-2 - i])
        y = self.head(self.dropout(y))
        return functional.pixel_shuffle(y, 2) if self.subpixel else y
