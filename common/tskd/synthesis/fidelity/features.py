"""Feature extractors from images to vectors, for measures of fidelity and for the memorisation gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tskd.networks import build_sam, load_pretrained, read_checkpoint
from tskd.state import load_weights


class RandomFeatures(nn.Module):
    """Mean and spread of the channels of a fixed, untrained convolutional network, at four scales.

    It needs no download and knows no kind of image better than another, where Inception's ImageNet features fit medical
    images badly (random embeddings for that case: Naeem et al., arXiv 2002.09797). Numbers compare only with numbers of
    the same features.

    Args:
        seed: seed of the weights.
        resolution: side that images are brought to.
        widths: channels of the four layers; the vector has twice their sum.
    """

    def __init__(self, seed: int = 0, resolution: int = 64, widths: tuple[int, ...] = (8, 16, 32, 32)) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.resolution = resolution
        self.name = f"random convolutions (seed {seed}) at {resolution} px"
        kernels = []
        for before, width in zip((3, *widths), widths, strict=False):
            kernel = torch.randn(width, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
            kernels.append(nn.Parameter(kernel, requires_grad=False))
        self.kernels = nn.ParameterList(kernels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return vectors N x D of images N x c x X x Y in [0, 1], c = 1 or 3."""
        x = _resize(images.expand(-1, 3, -1, -1), self.resolution) * 2 - 1
        statistics = []
        for kernel in self.kernels:
            x = functional.relu(functional.conv2d(x, kernel.to(x), stride=2, padding=1))
            statistics += [x.mean((2, 3)), x.std((2, 3))]
        return torch.cat(statistics, dim=1)


class EncoderFeatures(nn.Module):
    """Global average pooling of a teacher's image embedding.

    Args:
        network: module with `forward_features(images) -> {"embedding": N x D x h x w, ...}`, such as the teacher.
        resolution: side of the images that it takes.
        name: what the features are called in reports.
    """

    def __init__(self, network: nn.Module, resolution: int, name: str = "encoder") -> None:
        super().__init__()
        self.name = name
        self.network = network.eval()
        self.forward_features: Any = network.forward_features
        self.resolution = resolution

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return vectors N x D of images N x c x X x Y in [0, 1]."""
        return self.forward_features(_resize(images, self.resolution))["embedding"].float().mean((2, 3))


def features_of(vfm: str, weights: str | Path | None, resolution: int) -> RandomFeatures | EncoderFeatures:
    """Return `teacher_features`, or without weights those of a fixed random network, which needs no download."""
    return teacher_features(vfm, weights, resolution) if weights else RandomFeatures()


def teacher_features(vfm: str, weights: str | Path | None = None, resolution: int = 256) -> EncoderFeatures:
    """Return a teacher's image encoder: a foundation model as it is, or after its adaptation to the task.

    They are not Inception's, which know photographs: numbers compare only with numbers of the same encoder and size.

    Args:
        vfm: foundation model, one of `tskd.networks.VFMS`.
        weights: a trained teacher's `model.pt`, or whatever `tskd.networks.load_pretrained` takes; None for the
            foundation model's own weights.
        resolution: side that images are brought to; a teacher with a ViT takes only the size it was trained at.

    Raises:
        TskdError: no such model, or weights that are not this model's.
    """
    name = f"{vfm} encoder at {resolution} px"
    if weights is not None and Path(weights).is_file():
        state = read_checkpoint(weights)
        if "no_prompt_embedding" in state:  # a teacher's
            high_res = any(key.startswith("high_res.") for key in state)
            classes = len(state["mask_decoder.mask_tokens.weight"])
            network = build_sam(vfm, classes, resolution, high_res_features=high_res)
            return EncoderFeatures(load_weights(network, weights), resolution, f"{name}, fine-tuned")
    return EncoderFeatures(load_pretrained(build_sam(vfm, 2, resolution), weights), resolution, name)


def _resize(images: torch.Tensor, resolution: int) -> torch.Tensor:
    if images.shape[-2:] == (resolution, resolution):
        return images
    return functional.interpolate(
        images, (resolution, resolution), mode="bilinear", antialias=True, align_corners=False
    )
