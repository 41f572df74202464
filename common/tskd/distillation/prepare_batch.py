"""Moves a batch to the device, augments it there, and hands it to the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from tskd.distillation.augmentation import BatchAugmentation


class AugmentedBatch(PrepareBatch):
    """`prepare_batch` of a MONAI engine with augmentation on the device.

    Soft labels come from their files, and go to the device, as float16; here they become float32, which augmentation
    and losses compute in.

    Args:
        augmentation: applied to all keys together, or None for no augmentation.
        targets: key of the target, which is a tensor then, or a list of keys, for a dict.
    """

    def __init__(self, augmentation: BatchAugmentation | None, targets: str | Sequence[str] = "label") -> None:
        self.augmentation = augmentation
        self.targets = targets

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
        """Returns (image, target), all plain tensors on `device`, float32 or of whole numbers."""
        batch = {}
        for key in ("image", *([self.targets] if isinstance(self.targets, str) else self.targets)):
            value = batchdata[key]
            value = value.as_tensor() if hasattr(value, "as_tensor") else value
            value = value.to(device, non_blocking=non_blocking, **kwargs)
            batch[key] = value.float() if value.is_floating_point() else value
        if self.augmentation is not None:
            batch = self.augmentation(batch)
        image = batch.pop("image")
        return image, batch[self.targets] if isinstance(self.targets, str) else batch
