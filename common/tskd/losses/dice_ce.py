"""Supervised Dice and cross-entropy loss that ignores unlabelled pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tskd.errors import TskdError

IGNORE = 255


class DiceCELoss(nn.Module):
    """Weighted sum of soft Dice (over the batch) and cross-entropy on the labelled pixels.

    Dice is computed per class over all pixels of the batch, which keeps it stable for slices where a class is absent,
    and averaged over the classes that occur in the batch's labels. SAMed (arXiv 2304.13785) weighs 0.8 Dice + 0.2 CE.

    Args:
        dice_weight: weight of the Dice term.
        ce_weight: weight of the cross-entropy term.
        class_weights: weight of each class in the cross-entropy, or None; the mean is weighted as torch does it, so
            only their proportions count.
        include_background: whether class 0 counts in the Dice term.

    Shape:
        logits B x N x H x W [x D], label B x 1 x H x W [x D] with class indices and 255 for unlabelled; returns a
        scalar, which is 0 (with a gradient of 0) where every pixel is unlabelled.

    Raises:
        TskdError: when the shapes, or the number of class weights, do not fit.
    """

    def __init__(
        self,
        dice_weight: float = 0.8,
        ce_weight: float = 0.2,
        class_weights: Sequence[float] | None = None,
        include_background: bool = False,
    ) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.include_background = include_background
        self.class_weights: Tensor | None
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the weighted sum."""
        if label.shape != (logits.shape[0], 1, *logits.shape[2:]):
            raise TskdError(
                f"DiceCELoss: expected logits BNHW[D] and label B1HW[D], found {tuple(logits.shape)} and "
                f"{tuple(label.shape)}"
            )
        if self.class_weights is not None and len(self.class_weights) != logits.shape[1]:
            raise TskdError(
                f"class_weights: expected one weight for each of the {logits.shape[1]} classes, background included, "
                f"found {len(self.class_weights)}"
            )
        logits, target = logits.float(), label[:, 0].long()
        valid = target != IGNORE
        target = target.masked_fill(~valid, 0)
        weights = logits.new_ones(logits.shape[1]) if self.class_weights is None else self.class_weights.to(logits)
        cross_entropy = functional.cross_entropy(logits, target, weight=weights, reduction="none")
        cross_entropy = (cross_entropy * valid).sum() / (weights[target] * valid).sum().clamp(min=1e-6)
        return self.ce_weight * cross_entropy + self.dice_weight * self._dice(logits, target, valid)

    def _dice(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        prediction = logits.softmax(1) * valid[:, None]
        truth = functional.one_hot(target, logits.shape[1]).movedim(-1, 1) * valid[:, None]
        axes = [0, *range(2, logits.ndim)]
        intersection, cardinality = (prediction * truth).sum(axes), (prediction + truth).sum(axes)
        present = truth.sum(axes) > 0
        if not self.include_background:
            present[0] = False
        dice = 1 - (2 * intersection + 1e-5) / (cardinality + 1e-5)
        return (dice * present).sum() / present.sum().clamp(min=1)
