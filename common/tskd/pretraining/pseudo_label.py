"""Hard pseudo-labels from the teacher's logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from torch.nn import functional

from tskd.errors import TskdError


class PseudoLabeld(MapTransform):
    """Turn the teacher's `logits` into a hard `label` of the image's size (pseudo-labels, Lee 2013).

    The logits are interpolated first and then decided by argmax, so that borders are finer than the logits' grid. All
    that the teacher is unsure about is lost: that is what distillation on soft labels keeps.

    Args:
        num_classes: classes of the student, which the teacher must have too.

    Shape:
        image c x H x W and logits C x h x w; label 1 x H x W, uint8.

    Raises:
        TskdError: on a call, when the teacher has another number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(keys=["logits"])
        self.num_classes = num_classes

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry with `label` in place of `logits`."""
        entry = dict(data)
        logits = torch.as_tensor(entry.pop("logits")).float()
        if len(logits) != self.num_classes:
            raise TskdError(
                f"soft labels of {entry.get('case', 'unknown')}: expected logits of {self.num_classes} classes (key "
                f"num_classes), found {len(logits)}. Pass --num_classes {len(logits)} or give the student's teacher"
            )
        size = entry["image"].shape[1:]
        fine = functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)
        entry["label"] = fine.argmax(1).to(torch.uint8)
        return entry
