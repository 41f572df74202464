"""Draw the outlines of masks over their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tskd.data.io.nifti import to_lps
from tskd.files import atomic
from tskd.predict.read_case import LoadedImage

COLOURS = (
    (230, 60, 60),
    (70, 160, 255),
    (80, 210, 100),
    (255, 190, 40),
    (200, 110, 255),
    (60, 220, 220),
    (255, 130, 180),
)
_SIDE = 320  # pixels of one slice's longer side
_SLICES = 6


def write_overlay(path: Path, image: LoadedImage, mask: np.ndarray) -> None:
    """Write a PNG: up to six slices with the outlines of the structures, as radiologists look at them, or the picture.

    Args:
        path: new .png file.
        image: what was segmented.
        mask: its class indices.
    """
    if image.affine is None:
        panels = [_draw_outlines(np.atleast_3d(image.array) * np.ones(3, np.uint8), mask)]
    else:
        array, affine = to_lps(np.nan_to_num(image.array.astype(np.float32)), image.affine)
        labels, _ = to_lps(mask, image.affine)
        low, high = np.percentile(array, [0.5, 99.5])
        grey = (np.clip((array - low) / max(float(high - low), 1e-6), 0, 1) * 255).astype(np.uint8)
        across, down = np.linalg.norm(affine[:3, :2], axis=0)
        panels = []
        for k in _representative_slices(labels):
            rows = np.repeat(grey[:, :, k].T[..., None], 3, axis=2)
            panels.append(
                _draw_outlines(_resize(rows, across, down, True), _resize(labels[:, :, k].T, across, down, False))
            )
    with atomic(path) as draft:
        Image.fromarray(_montage(panels)).save(draft, format="PNG")


def _representative_slices(labels: np.ndarray) -> list[int]:
    """Return slices spread over those that have a structure, or over all."""
    slices = np.flatnonzero(labels.any(axis=(0, 1)))
    slices = slices if slices.size else np.arange(labels.shape[2])
    return [int(slices[int(k)]) for k in np.linspace(0, slices.size - 1, min(_SLICES, slices.size)).round()]


def _resize(rows: np.ndarray, across: float, down: float, smooth: bool) -> np.ndarray:
    """Resize rows and columns to millimetres, the longer side `_SIDE` pixels."""
    wide, high = rows.shape[1] * across, rows.shape[0] * down
    size = (max(1, round(_SIDE * wide / max(wide, high))), max(1, round(_SIDE * high / max(wide, high))))
    return np.asarray(
        Image.fromarray(rows).resize(size, Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)
    )


def _draw_outlines(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    for index in range(1, int(labels.max(initial=0)) + 1):
        inside = np.pad(labels == index, 1)
        core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        rows[inside[1:-1, 1:-1] & ~core] = COLOURS[(index - 1) % len(COLOURS)]
    return rows


def _montage(panels: list[np.ndarray]) -> np.ndarray:
    """Arrange panels in rows of three."""
    high, wide = (max(panel.shape[axis] for panel in panels) for axis in (0, 1))
    columns = min(3, len(panels))
    sheet = np.zeros((-(-len(panels) // columns) * high, columns * wide, 3), np.uint8)
    for index, panel in enumerate(panels):
        top, left = index // columns * high, index % columns * wide
        sheet[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    return sheet
