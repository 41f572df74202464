"""Label maps that condition a diffusion model: real ones under random affine and elastic deformation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from tskd.data.budget import Budget
from tskd.data.datalist import entries, read


class WarpedLabels:
    """Label map k: one of the training list's, under an affine and elastic deformation; a function of seed and k.

    Real shapes in arrangements that no patient had. The warp is an affine map after an elastic one; what comes in from
    outside the picture is background. Only numpy draws and moves, so the map is the same on every device.

    Args:
        dataset_file: dataset.json with labels in `training`.
        size: (x, y) of the maps, or one number for both.
        seed: seed of the whole set.
        num_labelled: labelled budget, as `tskd.data.entries` takes it; None means all label maps.
        rotate: largest rotation in degrees.
        scale: largest relative zoom.
        translate: largest shift as a fraction of the side.
        elastic: standard deviation of the elastic displacement as a fraction of the side.

    Raises:
        TskdError: no training entry, or fewer than `num_labelled`.
    """

    def __init__(
        self,
        dataset_file: str | os.PathLike[str],
        size: int | Sequence[int],
        seed: int = 0,
        num_labelled: Budget = None,
        rotate: float = 8.0,
        scale: float = 0.1,
        translate: float = 0.04,
        elastic: float = 0.015,
    ) -> None:
        labelled = entries(dataset_file, "labelled", num_labelled)
        self.images, self.paths = ([entry[key] for entry in labelled] for key in ("image", "label"))
        self.num_classes = len(read(dataset_file)["labels"])
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.seed = seed
        self.rotate, self.scale, self.translate, self.elastic = rotate, scale, translate, elastic

    @property
    def settings(self) -> dict[str, Any]:
        """What the maps depend on besides seed and number: how many real ones, and the hash of their files."""
        warp = {"rotate": self.rotate, "scale": self.scale, "translate": self.translate, "elastic": self.elastic}
        return {"count": len(self.paths), "sha256": labels_sha256(self.paths), **warp}

    def __call__(self, number: int) -> torch.Tensor:
        """Return the label map 1 x X x Y (uint8) of image `number`."""
        index, points = self._draw(number)
        labels = read_labels(self.paths[index], self.size)[0].numpy()
        return torch.from_numpy(map_coordinates(labels, points, order=0, mode="constant", cval=0))[None]

    def source(self, number: int) -> str:
        """Return the image file of the labelled entry that map `number` is of."""
        return str(self.images[int(self._random(number).integers(len(self.paths)))])

    def warped(self, number: int, image: torch.Tensor) -> torch.Tensor:
        """Warp an image C x X x Y of `size` as map `number` is: what a model that copies would draw to it."""
        points = self._draw(number)[1]
        return torch.stack([torch.from_numpy(map_coordinates(c.numpy(), points, order=1, cval=0)) for c in image])

    def _random(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number])

    def _draw(self, number: int) -> tuple[int, np.ndarray]:
        rng = self._random(number)
        return int(rng.integers(len(self.paths))), self._sampling_grid(rng)

    def _sampling_grid(self, rng: np.random.Generator) -> np.ndarray:
        """Return where each pixel of the result comes from: 2 x X x Y, in pixels."""
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        zoom = np.exp(rng.uniform(-1, 1) * np.log1p(self.scale))
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
        shift = rng.uniform(-self.translate, self.translate, 2) * self.size
        centre = (np.array(self.size) - 1) / 2
        grid = np.stack(np.meshgrid(*map(np.arange, self.size), indexing="ij")).astype(float)
        points = np.tensordot(rotation, grid - centre[:, None, None], axes=1) + (centre + shift)[:, None, None]
        for axis, side in enumerate(self.size):
            displacement = gaussian_filter(rng.standard_normal(self.size), sigma=0.08 * side, mode="reflect")
            points[axis] += displacement * (self.elastic * side / displacement.std())
        return points


def labels_sha256(paths: Sequence[str | os.PathLike[str]]) -> str:
    """Return the SHA-256 of label files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def read_labels(path: str | os.PathLike[str], size: Sequence[int]) -> torch.Tensor:
    """Read a label map from its PNG file at (x, y) = `size`, by nearest neighbour: 1 x X x Y, uint8."""
    with Image.open(path) as picture:
        rows = np.asarray(picture.resize((size[0], size[1]), Image.Resampling.NEAREST))
    return torch.from_numpy(rows.T.astype(np.uint8))[None]
