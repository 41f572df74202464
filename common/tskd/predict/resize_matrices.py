"""Resizing of an axis as a matrix: separable, so an image is resized by one product from each side.

The matrices hold what `torch.nn.functional.interpolate` and MONAI's `Resize` compute, so that an image can be resized
in NumPy as they do it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def linear(size: int, target: int) -> np.ndarray:
    """Return linear interpolation between pixel centres (align_corners=False), float32 [target, size]."""
    matrix = np.zeros((target, size))
    for row in range(target):
        position = max((row + 0.5) * size / target - 0.5, 0.0)
        left = min(int(position), size - 1)
        right = min(left + 1, size - 1)
        matrix[row, left] += 1 - (position - left)
        matrix[row, right] += position - left
    return matrix.astype(np.float32)


@lru_cache(maxsize=64)
def antialiased(size: int, target: int) -> np.ndarray:
    """Return linear interpolation, kernel as wide as the factor (torch's antialias=True): float32 [target, size]."""
    factor = size / target
    support = max(factor, 1.0)
    matrix = np.zeros((target, size))
    for row in range(target):
        centre = factor * (row + 0.5)
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        pixels = np.arange(first, last)
        weights = np.clip(1 - np.abs((pixels - centre + 0.5) / support), 0, None)
        matrix[row, first:last] = weights / weights.sum()
    return matrix.astype(np.float32)


@lru_cache(maxsize=64)
def smoothed(size: int, target: int) -> np.ndarray:
    """Return Gaussian smoothing, then linear interpolation (MONAI's anti_aliasing=True), float32 [target, size].

    The Gaussian has sigma = (size / target - 1) / 2 pixels and meets zeros beyond the border, as in
    `monai.transforms.GaussianSmooth`, so that borders darken; an axis that grows is not smoothed. Older bundles
    have it in their inference.json.
    """
    sigma = max(0.0, (size / target - 1) / 2)
    if sigma == 0:
        return linear(size, target)
    radius = int(max(sigma * 4.0, 0.5) + 0.5)
    scale = 0.70710678 / sigma
    kernel = [0.5 * (math.erf(scale * (x + 0.5)) - math.erf(scale * (x - 0.5))) for x in range(-radius, radius + 1)]
    blur = np.zeros((size, size))
    for offset, weight in zip(range(-radius, radius + 1), kernel, strict=True):
        blur += weight * np.eye(size, k=offset)
    return (linear(size, target).astype(np.float64) @ blur).astype(np.float32)
