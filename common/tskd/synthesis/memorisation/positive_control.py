"""Positive control of the memorisation gate: how many altered copies of training images it detects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from monai.networks.layers import AffineTransform
from torch.nn import functional

from tskd.synthesis.memorisation.similarity import Descriptors, Verdict, join


def rotated(images: torch.Tensor, degrees: float = 0.0, zoom: float = 1.0) -> torch.Tensor:
    """Rotate or enlarge images N x C x X x Y about their centre."""
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / zoom
    theta = torch.cat([turn, torch.zeros(2, 1)], dim=1)
    return AffineTransform(zero_centered=True, padding_mode="border", align_corners=True)(images, theta)


def shifted(images: torch.Tensor, pixels: int) -> torch.Tensor:
    """Shift images N x C x X x Y to larger x and y; the first row and column fill the gap."""
    padded = functional.pad(images, (pixels, 0, pixels, 0), mode="replicate")
    return padded[..., : images.shape[-2], : images.shape[-1]]


def noisy(images: torch.Tensor) -> torch.Tensor:
    """Add Gaussian noise of standard deviation 0.1, always the same."""
    return (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """Downsample to a quarter of the pixels, and back."""
    small = functional.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    return functional.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)


ALTERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "unchanged": lambda images: images,
    "flipped": lambda images: images.flip(-2),
    "brighter: gamma 0.7": lambda images: images**0.7,
    "less contrast: 0.7 x + 0.2": lambda images: 0.7 * images + 0.2,
    "noise: sigma 0.1": noisy,
    "blurred: half the resolution": _blurred,
    "shifted by 3 pixels": lambda images: shifted(images, 3),
    "shifted by 8% of the side": lambda images: shifted(images, round(0.08 * images.shape[-1])),
    "turned by 3 degrees": lambda images: rotated(images, degrees=3),
    "turned by 6 degrees": lambda images: rotated(images, degrees=6),
    "enlarged by 5%": lambda images: rotated(images, zoom=1.05),
    "enlarged by 10%": lambda images: rotated(images, zoom=1.1),
    "half of another image": lambda images: torch.cat(
        [images[:, :, : images.shape[2] // 2], _right_halves_rolled(images)], dim=2
    ),
}


def _right_halves_rolled(images: torch.Tensor) -> torch.Tensor:
    """Return the right halves of the images, rolled by half of the batch: for a composite of two images."""
    return images.roll(len(images) // 2, 0)[:, :, images.shape[2] // 2 :]


def detect_altered_copies(
    images: torch.Tensor, describe: Callable[[torch.Tensor], Descriptors], compare: Callable[[Descriptors], Verdict]
) -> dict[str, dict[str, Any]]:
    """Alter images in each of `ALTERATIONS` and count those that the gate finds.

    Args:
        images: N training images, N x C x X x Y in [0, 1].
        describe: what the gate compares of such images.
        compare: its verdict; asked once for all alterations, since going through the training images is what costs.

    Returns:
        For each alteration what `detection_counts` gives.
    """
    count = len(images)
    verdict = compare(join([describe(alter(images)) for alter in ALTERATIONS.values()]))
    return {
        name: detection_counts(verdict.rows(slice(k * count, (k + 1) * count))) for k, name in enumerate(ALTERATIONS)
    }


def detection_counts(verdict: Verdict) -> dict[str, Any]:
    """Return `images`, `flagged`, of these `by_pixels` and `by_features` (None without), and `smallest_similarity`."""
    by_pixels, by_features = verdict.copied
    return {
        "images": len(by_pixels),
        "flagged": int(verdict.flagged.sum()),
        "by_pixels": int(by_pixels.sum()),
        "by_features": None if by_features is None else int(by_features.sum()),
        "smallest_similarity": round(float(verdict.similarity.min()), 4),
    }
