"""Attention transfer: distillation of spatial attention maps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tskd.errors import TskdError


class AttentionTransferLoss(nn.Module):
    r"""Mean over the batch of || a(student) - a(teacher) ||^2, a = vec(sum_c |f_c|^p) scaled to length 1.

    Activation-based attention transfer, Zagoruyko and Komodakis, arXiv 1612.03928, with the squared distance. The
    channels are summed, so that student and teacher may have different numbers of them.

    Args:
        power: p, 1 or more; larger looks at the strongest features. The paper takes 2.

    Shape:
        student B x N x H x W [x D], teacher B x M x H x W [x D]; returns a scalar in float32, between 0 and 2.

    Raises:
        TskdError: for a power below 1, and when batch or spatial sizes differ.
    """

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        if power < 1:  # its gradient has no bound at 0
            raise TskdError(f"AttentionTransferLoss: expected a power of 1 or more, found {power}")
        self.power = power

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared distance."""
        if student.ndim < 3 or student.shape[:1] + student.shape[2:] != teacher.shape[:1] + teacher.shape[2:]:
            raise TskdError(
                "AttentionTransferLoss: expected student BNHW[D] and teacher BMHW[D] of one size, found "
                f"{tuple(student.shape)} and {tuple(teacher.shape)}"
            )
        return (self._attention(student) - self._attention(teacher.detach())).square().sum(1).mean()

    def _attention(self, features: Tensor) -> Tensor:
        return functional.normalize(features.float().abs().pow(self.power).sum(1).flatten(1), dim=1)
