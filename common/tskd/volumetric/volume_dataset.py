"""Volumes made of a data set's slices, with their labels and soft labels, and random patches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from monai.transforms import Compose, Transform
from torch import Tensor
from torch.nn import functional

from tskd.data.slice_order import slices_by_volume
from tskd.errors import TskdError

KEYS = ("image", "label", "logits")


class StackSlices(Transform):
    """Read the slices of one volume and stack them; soft labels are interpolated to the image's in-plane size.

    Args:
        transform: from the entry of a slice to `image` C x X x Y, `label` 1 x X x Y and `logits` N x x x y, those that
            there are. It is that of the 2-D trainings.

    Shape:
        {"slices": list of entries, in their order} to `image` C x X x Y x Z, `label` 1 x X x Y x Z and `logits`
        N x X x Y x Z, float16.
    """

    def __init__(self, transform: Callable[[Any], Mapping[str, Any]]) -> None:
        self.transform = transform

    def __call__(self, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Tensor]:
        """Return the volume."""
        items = [self.transform(dict(entry)) for entry in data["slices"]]
        volume = {key: torch.stack([item[key] for item in items], dim=-1) for key in KEYS if key in items[0]}
        if "logits" in volume:
            size = volume["image"].shape[1:3]
            by_slice = volume["logits"].movedim(-1, 0).float()
            large = functional.interpolate(by_slice, size=size, mode="bilinear", align_corners=False)
            volume["logits"] = large.movedim(0, -1).half()
        return volume


class VolumeDataset(CacheDataset):
    """A data set of volumes whose slices dataset.json lists; an item is what `crop` makes of one of them.

    The volumes stay in memory. Random patches depend on torch's random numbers alone, so that a training that was
    stopped draws the ones that it would have drawn.

    Args:
        data: entries of slices, with `group`, `case` and what `transform` reads; each volume's slices without a gap.
        transform: as of `StackSlices`.
        crop: MONAI's transforms of a volume to a patch, or to a list of patches.
        cache_rate: share of the volumes that is kept in memory.
        num_workers: threads that read.
        progress: whether a bar is shown.

    Attributes:
        volumes: for each volume `case`, and `part` where its first slice has one.

    Raises:
        TskdError: cases without a slice number, independent images, volumes with slices missing, or with slices of
            several parts of a batch.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Any], Mapping[str, Any]],
        crop: Sequence[Callable[..., Any]] = (),
        cache_rate: float = 1.0,
        num_workers: int | None = None,
        progress: bool = False,
    ) -> None:
        stacks = [list(slices.values()) for slices in slices_by_volume(data, "volume.json", "a 3-D student").values()]
        for stack in stacks:
            if len({entry.get("part") for entry in stack}) > 1:
                raise TskdError(
                    f"volume.json: expected whole volumes with labels or without, found the slices of patient "
                    f"{stack[0]['group']} in several parts of the batch. Label whole patients: whole_patients.json and "
                    "--num_labelled_groups N"
                )
        self.volumes = [{key: first[key] for key in ("case", "part") if key in first} for first, *_ in stacks]
        super().__init__(
            [{"slices": stack} for stack in stacks],  # a chain would take a bare list for several items
            Compose([StackSlices(transform), *crop]),
            cache_rate=cache_rate,
            num_workers=num_workers,
            progress=progress,
        )

    def _transform(self, index: int) -> Any:
        self.transform.set_random_state(seed=int(torch.randint(2**31, ())))
        return super()._transform(index)
