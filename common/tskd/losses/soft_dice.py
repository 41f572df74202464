"""Soft Dice distillation: overlap with the teacher's soft masks, robust to a large background."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tskd.losses.shapes import check_same_shape


class SoftDiceLoss(nn.Module):
    r"""1 - 2 sum(p q) / (sum(p^2) + sum(q^2)), mean over classes; p, q the softmax of student and teacher.

    The squared denominator (V-Net, arXiv 1606.04797) makes it 0 at identity also for soft masks. Each class is
    summed over the whole batch, and weighs the same however small the organ: per-pixel losses alone let the background
    win. A class that is nowhere in the batch is left out: its probabilities are noise near 0.

    Args:
        include_background: whether class 0 counts.
        only_present: whether only classes count that the teacher sees somewhere in the batch, as its most likely one.

    Shape:
        student and teacher logits B x N x H x W [x D], N >= 2; returns a scalar in float32.

    Raises:
        TskdError: when the shapes differ.
    """

    def __init__(self, include_background: bool = False, only_present: bool = True) -> None:
        super().__init__()
        self.only_present = only_present
        self.first = 0 if include_background else 1

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over classes."""
        check_same_shape("SoftDiceLoss", student, teacher)
        p, q = (logits.float().softmax(1) for logits in (student, teacher.detach()))
        axes = [0, *range(2, p.ndim)]
        counts = torch.ones(p.shape[1], device=p.device)
        if self.only_present:
            counts = (q == q.amax(1, keepdim=True)).any(0).flatten(1).any(1).float()
        counts[: self.first] = 0
        dice = 1 - (2 * (p * q).sum(axes) + 1e-6) / ((p * p).sum(axes) + (q * q).sum(axes) + 1e-6)
        return (dice * counts).sum() / counts.sum().clamp(min=1)
