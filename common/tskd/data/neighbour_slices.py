"""2.5-D input: a slice with its neighbours as further channels, from the slices of a data set or from a volume."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor

from tskd.data.datalist import LISTS, read
from tskd.data.slice_order import slices_by_volume
from tskd.errors import TskdError


class NeighbourSlicesd(MapTransform):
    """Puts the files of a slice and its neighbours in place of the slice's, so that `LoadImaged` stacks their channels.

    The slices run from `count` below to `count` above. At the ends of a volume the border slice is repeated. All other
    keys, the label for instance, stay those of the middle slice.

    Args:
        files: dataset.json files that list the slices, with or without labels.
        count: neighbours on each side, at least 1.

    Raises:
        TskdError: a number that is none; a file of independent images, or with slices missing. On a call: a slice that
            no file lists.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]], count: int = 1) -> None:
        super().__init__(keys=["image"])
        _check_count(count)
        self.files = [str(file) for file in files]
        self.stacks: dict[str, list[str]] = {}
        for file in self.files:
            content, folder = read(file), Path(file).resolve().parent
            training = [entry for name in LISTS[:2] for entry in content[name]]
            for slices in slices_by_volume(training, file, "neighbour_slices").values():
                images = [os.path.realpath(folder / entry["image"]) for entry in slices.values()]
                for position, image in enumerate(images):
                    self.stacks[image] = [images[i] for i in neighbours(position, len(images), count)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the entry with a list of 2 x count + 1 files under `image`."""
        image = os.path.realpath(data["image"])
        if image not in self.stacks:
            raise TskdError(
                f"{data['image']}: expected a slice that {', '.join(self.files)} lists, so that its neighbours are "
                "known, found none. Name its dataset.json in neighbour_files, too"
            )
        return {**data, "image": self.stacks[image]}


def neighbours(position: int, length: int, count: int) -> list[int]:
    """Return the positions from `count` before to `count` behind one of `length`, the ends repeated."""
    return [min(max(position + offset, 0), length - 1) for offset in range(-count, count + 1)]


class NeighbourChannels:
    """Stack each slice of a volume with its neighbours, as `NeighbourSlicesd` does with files.

    Args:
        count: neighbours on each side, at least 1.

    Shape:
        C x X x Y x Z to (2 count + 1) C x X x Y x Z: the channels of slice z - count first, those of z + count last.

    Raises:
        TskdError: a number that is none.
    """

    def __init__(self, count: int) -> None:
        _check_count(count)
        self.count = count

    def __call__(self, volume: Tensor) -> Tensor:
        """Return the stacks of all slices."""
        length = volume.shape[-1]
        positions = torch.tensor([neighbours(z, length, self.count) for z in range(length)], device=volume.device)
        return torch.cat([volume[..., positions[:, offset]] for offset in range(positions.shape[1])])


def _check_count(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise TskdError(f"neighbour_slices: expected a whole number of at least 1, found {count!r}")
