"""Sliding-window inference in NumPy, as MONAI's `SlidingWindowInferer` does it with Gaussian weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

OVERLAP, SIGMA = 0.5, 0.125  # shares of a patch's side, as volume.json and MONAI have them


def sliding_window(
    volume: np.ndarray, patch: Sequence[int], network: Callable[[np.ndarray], np.ndarray], batch_size: int = 1
) -> np.ndarray:
    """Return the weighted mean of a network's logits over patches that overlap by a half.

    A volume that is smaller than a patch is continued with its border on both sides.

    Args:
        volume: float32 [C, X, Y, Z].
        patch: voxels along x, y and z.
        network: from float32 [B, C, *patch] to logits [B, classes, *patch].
        batch_size: patches in one call.

    Returns:
        Logits float32 [classes, X, Y, Z].
    """
    missing = [max(side - length, 0) for side, length in zip(patch, volume.shape[1:], strict=True)]
    before = [count // 2 for count in missing]
    around = [(0, 0), *((first, count - first) for first, count in zip(before, missing, strict=True))]
    padded, weights = np.pad(volume, around, mode="edge"), gaussian_weights(patch)
    windows = [
        (slice(None), *(slice(first, first + side) for first, side in zip(start, patch, strict=True)))
        for start in product(*map(_starts, padded.shape[1:], patch))
    ]
    total, weight = np.zeros(1, np.float32), np.zeros((1, *padded.shape[1:]), np.float32)
    for i in range(0, len(windows), batch_size):
        chosen = windows[i : i + batch_size]
        logits = network(np.ascontiguousarray(np.stack([padded[window] for window in chosen])))
        if not i:
            total = np.zeros((logits.shape[1], *padded.shape[1:]), np.float32)
        for window, answer in zip(chosen, logits, strict=True):
            total[window] += answer * weights
            weight[window] += weights
    inside = (slice(first, first + length) for first, length in zip(before, volume.shape[1:], strict=True))
    volume_in_padded = (slice(None), *inside)
    return (total / weight)[volume_in_padded]


def gaussian_weights(patch: Sequence[int]) -> np.ndarray:
    """Return weights of a patch's voxels, 1 at its centre, at least 0.001."""
    weights = np.ones((1, 1, 1), np.float32)
    for axis, side in enumerate(patch):
        distance = np.arange(side, dtype=np.float32) - (side - 1) / 2
        along = np.exp(-(distance**2) / (2 * (SIGMA * side) ** 2))
        weights = weights * along.reshape([-1 if k == axis else 1 for k in range(3)])
    return np.maximum(weights, max(weights.min(), 1e-3)).astype(np.float32)


def _starts(length: int, side: int) -> list[int]:
    """Return where patches begin along an axis; the last one ends with the axis."""
    step = max(int(side * (1 - OVERLAP)), 1)
    starts = range(0, max(length - side, 0) + step, step)
    return [min(start, length - side) for start in starts]
