"""Nearest training image by normalised cross-correlation over flips and small shifts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

_UNIFORM_STD = 0.005  # standard deviation (of 1) under which a window has nothing to compare


def pixel_descriptor(images: torch.Tensor, resolution: int = 64) -> torch.Tensor:
    """Return images grey, small and high-pass filtered, without what all patients share.

    A Gaussian blur (sigma 4 pixels of 64) is subtracted. What is left is detail, which tells copies from other patients
    far better than the outline of a body does: on abdominal MR the most alike slices of two patients correlate at 0.90
    as they are and at 0.68 without the blur, while altered copies stay at 0.87 and more.

    Args:
        images: N x C x X x Y in [0, 1].
        resolution: side of the result in pixels.

    Returns:
        N x resolution x resolution.
    """
    grey = images.float().mean(1, keepdim=True)
    if grey.shape[-2:] != (resolution, resolution):
        grey = functional.interpolate(
            grey, (resolution, resolution), mode="bilinear", antialias=True, align_corners=False
        )
    sigma = resolution / 16
    reach = round(3 * sigma)
    bell = torch.exp(-(torch.arange(-reach, reach + 1, device=grey.device) ** 2) / (2 * sigma**2))
    bell = bell / bell.sum()
    blurred = functional.conv2d(functional.pad(grey, (reach,) * 4, mode="replicate"), bell[None, None, :, None])
    return (grey - functional.conv2d(blurred, bell[None, None, None, :]))[:, 0]


def max_cross_correlation(
    queries: torch.Tensor, references: torch.Tensor, max_shift: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each query's highest normalised cross-correlation with any reference, over 4 flips and all small shifts.

    The middle of a query (without `max_shift` pixels on each side) is compared with every window of that size in the
    reference and its flips; each window is brought to mean 0 and norm 1. Brightness and contrast change nothing. A
    window without any structure correlates with nothing (0).

    Args:
        queries: N x R x R from `pixel_descriptor`.
        references: M x R x R from `pixel_descriptor`, on the same device.
        max_shift: pixels, in both directions and on both axes.

    Returns:
        Correlation (N, at most 1, -1 where there was nothing to compare with) and index of the reference (N).
    """
    best = torch.full((len(queries),), -1.0, device=queries.device)
    twin = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for index, score in enumerate(_cross_correlations(queries, references, max_shift)):
        better = score > best
        best = torch.where(better, score, best)
        twin[better] = index
    return best, twin


def nearest_other_patient(
    queries: torch.Tensor,
    references: torch.Tensor,
    query_groups: Sequence[str],
    reference_groups: Sequence[str],
    duplicate: float,
    max_shift: int = 3,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the same for images of other patients only, without duplicates of one picture.

    Args:
        queries: N x R x R from `pixel_descriptor`.
        references: M x R x R from `pixel_descriptor`, on the same device.
        query_groups: N patients.
        reference_groups: M patients.
        duplicate: correlation from which two images are one picture listed under two patients.
        max_shift: pixels, in both directions and on both axes.

    Returns:
        Correlation (N, below `duplicate`, -1 where there was nothing to compare with), index of the reference (N), and
        which pairs were left out as duplicates (N x M).
    """
    same = same_group(query_groups, reference_groups, queries.device)
    best = torch.full((len(queries),), -1.0, device=queries.device)
    twin = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    repeated = torch.zeros_like(same)
    for index, score in enumerate(_cross_correlations(queries, references, max_shift)):
        repeated[:, index] = (score >= duplicate) & ~same[:, index]
        better = (score > best) & ~same[:, index] & ~repeated[:, index]
        best = torch.where(better, score, best)
        twin[better] = index
    return best, twin, repeated


def max_cosine_similarity(
    queries: torch.Tensor, references: torch.Tensor, left_out: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the highest cosine similarity of feature vectors N x D with M x D, centred on the references.

    `left_out` (N x M) names pairs that are not compared.
    """
    centre = references.mean(0)
    scores = functional.normalize(queries - centre) @ functional.normalize(references - centre).T
    if left_out is not None:
        scores[left_out] = -1.0
    best, twin = scores.max(1)
    return best, twin


def same_group(first: Sequence[str], second: Sequence[str], device: torch.device) -> torch.Tensor:
    """Return which pairs are of one patient: N x M."""
    return torch.from_numpy(np.asarray(first)[:, None] == np.asarray(second)[None]).to(device)


def structureless(images: torch.Tensor, max_shift: int = 3) -> torch.Tensor:
    """Return which of N x R x R images from `pixel_descriptor` are uniform in their middle (N)."""
    middle = _centre_crop(images, max_shift)
    return (middle - middle.mean(1, keepdim=True)).norm(dim=1) <= _UNIFORM_STD * middle.shape[1] ** 0.5


def _cross_correlations(queries: torch.Tensor, references: torch.Tensor, max_shift: int) -> Iterator[torch.Tensor]:
    """Yield, for each reference, its correlation with every query (N, at most 1)."""
    side = queries.shape[-1] - 2 * max_shift
    vectors = _normalise(_centre_crop(queries, max_shift))
    scale = _window_scale(references, side)
    # one buffer for all: new memory would cost more than the sums
    windows = references.new_empty(4, *scale.shape[1:], side, side)
    for reference, window_scale in zip(references, scale, strict=True):
        flips = torch.stack([reference, reference.flip(0), reference.flip(1), reference.flip(0, 1)])
        scales = torch.stack([window_scale, window_scale.flip(0), window_scale.flip(1), window_scale.flip(0, 1)])
        # the vectors have mean 0, so that the windows need not
        torch.mul(flips.unfold(1, side, 1).unfold(2, side, 1), scales[..., None, None], out=windows)
        yield (vectors @ windows.view(-1, side * side).T).amax(1).clamp(max=1.0)


def _window_scale(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return 1 / norm of each centred window side x side of N x R x R images, 0 of a uniform one."""
    exact = images.double()[:, None]
    variance = functional.avg_pool2d(exact**2, side, 1) - functional.avg_pool2d(exact, side, 1) ** 2
    deviation = variance.clamp_min(0).sqrt()[:, 0]
    return torch.where(deviation > _UNIFORM_STD, 1 / (deviation * side), 0.0).float()


def _centre_crop(images: torch.Tensor, max_shift: int) -> torch.Tensor:
    side = images.shape[-1] - 2 * max_shift
    return images[:, max_shift : max_shift + side, max_shift : max_shift + side].reshape(len(images), -1)


def _normalise(vectors: torch.Tensor) -> torch.Tensor:
    centred = vectors - vectors.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return torch.where(norm > _UNIFORM_STD * vectors.shape[1] ** 0.5, centred / norm.clamp_min(1e-12), 0.0)
