"""The distillation step: from a batch of images and soft labels to the student's next weights.

MONAI's `SupervisedTrainer` calls `distillation_step` once a batch, as its `iteration_update`. The arithmetic and the
events are those of the trainer's own step; a test holds the two to the same weights, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch, SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor

from tskd.distillation.augmentation import BatchAugmentation
from tskd.errors import TskdError


def distillation_step(engine: SupervisedTrainer, batchdata: Mapping[str, Any]) -> Any:
    """Train the student on one batch; no teacher runs, its answers were written to files before.

    Args:
        engine: holds the parts that the config names: `prepare_batch` (an `AugmentedBatch`), `network` (the student as
            a `TappedNetwork`), `inferer` (autocast), `loss_function` (a `DistillationLoss`) and `optimizer`.
        batchdata: collated: `image` B x c x H x W in [0, 1]; the teacher's `logits` B x C x h x w and `embedding`
            B x E x h' x w', float16; `label` B x 1 x H x W, 255 where there is none. Only the keys that a term of the
            loss reads need be there.

    Returns:
        `image`, `label` (the targets by name), `pred` (the student's outputs by name) and `loss` (a scalar, not divided
        by the accumulation steps). It is `engine.state.output` too, which handlers read at the events on the way.

    Raises:
        TskdError: MONAI's own mixed precision (`amp`) is switched on in the trainer.
    """
    if engine.amp:
        raise TskdError("train#trainer#amp: expected False, found True. Mixed precision is set by amp_dtype.")

    # 1. Images and soft labels go to the device, where one random warp moves them together.
    images, targets = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
    output = engine.state.output = {"image": images, "label": targets}

    # 2. Gradients of the batches before are dropped, unless this one is added to them.
    starts_update, ends_update = _accumulation(engine)
    engine.network.train()
    if starts_update:
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)

    # 3. The student answers with logits, features of the tapped layer, and these projected to the teacher's channels.
    output["pred"] = engine.inferer(images, engine.network)
    engine.fire_event(IterationEvents.FORWARD_COMPLETED)

    # 4. Each term compares one output with one target; the loss is their weighted sum (`DistillationLoss`).
    output["loss"] = engine.loss_function(output["pred"], targets).mean()
    engine.fire_event(IterationEvents.LOSS_COMPLETED)

    # 5. Backward: the mean over the batches of one update.
    (output["loss"] / engine.accumulation_steps).backward()
    engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

    # 6. Update. The learning rate follows at the end of the iteration (handler `learning_rate`).
    if ends_update:
        engine.optimizer.step()
    engine.fire_event(IterationEvents.MODEL_COMPLETED)
    return engine.state.output  # as a handler may have left it: `ListOutput` puts it into a list


def _accumulation(engine: SupervisedTrainer) -> tuple[bool, bool]:
    """Whether this batch is the first, and whether the last, of those that are added up for one update."""
    length, steps = engine.state.epoch_length, engine.accumulation_steps
    batch = engine.state.iteration - 1
    if length is None:
        return batch % steps == 0, (batch + 1) % steps == 0
    batch %= length  # an epoch ends with an update, of fewer batches where `steps` does not divide its length
    return batch % steps == 0, (batch + 1) % steps == 0 or batch + 1 == length


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
        """Return (image, target), all plain tensors on `device`, float32 or of whole numbers."""
        batch = {}
        for key in ("image", *([self.targets] if isinstance(self.targets, str) else self.targets)):
            value = batchdata[key]
            value = value.as_tensor() if hasattr(value, "as_tensor") else value
            value = value.to(device, non_blocking=non_blocking, **kwargs)
            batch[key] = value.float() if value.is_floating_point() else value
        if self.augmentation is not None:
            batch = self.augmentation.to(batch["image"].device)(batch)
        image = batch.pop("image")
        return image, batch[self.targets] if isinstance(self.targets, str) else batch
