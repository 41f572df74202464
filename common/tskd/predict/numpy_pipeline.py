"""Run a shipped bundle's preprocessing and postprocessing in NumPy, as its inference.json says them.

A transform that is not known here is refused, never passed over (`known_steps`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nibabel import orientations

from tskd.data.io.intensity import Intensity
from tskd.data.io.nifti import to_lps
from tskd.predict import resize_matrices
from tskd.predict.known_steps import ANTIALIAS, CLIP, body_intensity, check_known
from tskd.predict.numpy_windows import sliding_window
from tskd.predict.shipped_bundle import ShippedBundle
from tskd.predict.shipped_inferer import flip_ways

# float32 [B, channels, size, size] (of a 3-D network patches) -> logits [B, classes, size, size]
Network = Callable[[np.ndarray], np.ndarray]


class NumpyPipeline:
    """Preprocessing, network and postprocessing of a shipped bundle, from image to mask.

    Args:
        bundle: whose inference.json is followed.
        network: the function from a batch to logits.
        batch_size: slices of a volume in one call; of a 3-D network those of its patches.

    Raises:
        TskdError: inference.json holds a transform, an inferer or an option that is not known here.
    """

    def __init__(self, bundle: ShippedBundle, network: Network, batch_size: int = 8) -> None:
        self.bundle, self.network, self.batch_size = bundle, network, batch_size
        self.scale: Callable[[np.ndarray], np.ndarray] = lambda array: array
        self.downsample = resize_matrices.linear
        self.fill_empty = False
        check_known(bundle)
        for step in bundle.transforms("preprocessing"):
            self._configure(step)
        options = bundle.config.get("displayable_configs", {})
        self.largest = [int(index) for index in bundle.config.get("largest_component", [])]
        if isinstance(chosen := options.get("keep_largest_component"), bool):  # else where there are such classes
            self.largest = (self.largest or list(bundle.structures)) if chosen else []
        self.ways = flip_ways(bundle.config)

    def volume(self, array: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Return the mask of a volume [X, Y, Z], uint8, in the axis order of the volume."""
        lps, lps_affine = to_lps(array, affine)
        slices = self.scale(self._fill_non_finite(lps)).transpose(2, 0, 1)[:, None]  # B x 1 x X x Y
        starts, size = range(0, len(slices), self.batch_size), slices.shape[2:]
        small = np.concatenate([self._resize(slices[i : i + self.batch_size]) for i in starts])
        logits = self._patches(small) if self.bundle.patch_size else None
        masks = []
        for i in starts:
            part = range(i, min(i + self.batch_size, len(slices)))
            of_part = self._slices(small, part) if logits is None else logits[part.start : part.stop]
            masks.append(self._masks(of_part, size))
        mask = np.concatenate(masks).transpose(1, 2, 0)
        to_input = orientations.ornt_transform(
            orientations.io_orientation(lps_affine), orientations.io_orientation(affine)
        )
        return np.ascontiguousarray(orientations.apply_orientation(self._largest_components(mask), to_input))

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """Return the mask of a picture [rows, columns] or [rows, columns, 3], uint8 [rows, columns]."""
        channels = np.atleast_3d(pixels).transpose(2, 1, 0)  # channels x columns x rows: MONAI's order
        image = self.scale(self._fill_non_finite(channels))[None]
        mask = self._masks(self._averaged(self._resize(image)), image.shape[2:])[0]
        return self._largest_components(mask).T

    def _configure(self, step: dict[str, Any]) -> None:
        target = step["_target_"]
        if target == "SignalFillEmptyd":
            self.fill_empty = True
        elif target in ("ScaleIntensityRanged", "ScaleIntensityRangePercentilesd", "Lambdad"):
            self.scale = self.scale if step.get("func") == CLIP else _scaling(step)  # our scalings clip
        elif target == "Resized":
            self.downsample = resize_matrices.smoothed if step.get("anti_aliasing") else resize_matrices.linear
        elif step.get("func") == ANTIALIAS:
            self.downsample = resize_matrices.antialiased

    def _fill_non_finite(self, array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        return np.nan_to_num(array, copy=False) if self.fill_empty else array

    def _resize(self, batch: np.ndarray) -> np.ndarray:
        """Return scaled images [B, C, X, Y] at the network's size."""
        size, (wide, high) = self.bundle.image_size, batch.shape[2:]
        return (self.downsample(wide, size) @ batch @ self.downsample(high, size).T).astype(np.float32)

    def _slices(self, small: np.ndarray, part: range) -> np.ndarray:
        """Return logits of some slices of a volume [Z, C, size, size], seen with their neighbours where there are."""
        count, last = self.bundle.neighbours, len(small) - 1
        near = [small[np.clip(np.arange(part.start, part.stop) + k, 0, last)] for k in range(-count, count + 1)]
        return self._averaged(np.concatenate(near, axis=1))

    def _patches(self, small: np.ndarray) -> np.ndarray:
        """Return logits [Z, classes, size, size] of a volume [Z, C, size, size] by a 3-D network."""
        patch, batch_size = self.bundle.patch_size, max(1, self.batch_size // self.bundle.patch_size[2])
        logits = self._flipped(np.moveaxis(small, 0, -1), lambda v: sliding_window(v, patch, self.network, batch_size))
        return np.moveaxis(logits, -1, 0)

    def _averaged(self, batch: np.ndarray) -> np.ndarray:
        """Return logits of images [B, C, size, size], the mean over their chosen mirror images."""
        return self._flipped(batch, self.network, first=2)

    def _flipped(self, array: np.ndarray, infer: Network, first: int = 1) -> np.ndarray:
        """Return the mean logits of an array and its chosen mirror images; `first` is the dimension of x."""
        total = np.zeros(1, np.float32)
        for way in self.ways:
            axes = tuple(first + axis for axis in way)
            total = total + np.flip(infer(np.ascontiguousarray(np.flip(array, axes))), axes)
        return total / np.float32(len(self.ways))

    def _masks(self, logits: np.ndarray, image_size: tuple[int, ...]) -> np.ndarray:
        """Return class indices [B, X, Y] of logits [B, classes, size, size], at the size of the images."""
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        across, down = (resize_matrices.linear(self.bundle.image_size, side) for side in image_size)
        return np.stack(
            [(across @ probability @ down.T).argmax(axis=0).astype(np.uint8) for probability in probabilities]
        )

    def _largest_components(self, mask: np.ndarray) -> np.ndarray:
        """Keep only the largest connected component (neighbours over corners, too) of the chosen classes."""
        if not self.largest:
            return mask
        from scipy import ndimage

        for index in self.largest:
            components, count = ndimage.label(mask == index, np.ones((3,) * mask.ndim))
            if count > 1:
                sizes = np.bincount(components.ravel())
                sizes[0] = 0
                mask = np.where((components > 0) & (components != np.argsort(sizes)[-1]), 0, mask).astype(np.uint8)
        return mask


def _scaling(step: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the scaling to [0, 1] that a transform's configuration says."""
    target = step["_target_"]
    if target == "ScaleIntensityRanged":
        return Intensity("window", float(step["a_min"]), float(step["a_max"])).scale
    if target == "ScaleIntensityRangePercentilesd":
        return Intensity("percentiles", float(step["lower"]), float(step["upper"])).scale
    body = body_intensity(step["func"])
    assert body is not None
    return body.scale
