"""Binary cross-entropy of every class against the teacher's soft mask, less the teacher's entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tskd.losses.shapes import check_same_shape


class SoftBCELoss(nn.Module):
    r"""Mean of q log(q / p) + (1 - q) log((1 - q) / (1 - p)); p, q the softmax of student and teacher, class by class.

    Soft targets (Hinton et al., arXiv 1503.02531) for each class against the rest, which is ours: the binary
    cross-entropy against soft masks less its smallest value, the teacher's own entropy: the gradient is the
    same and the loss is 0 at identity. Mean over pixels and classes.

    Args:
        include_background: whether class 0 counts.

    Shape:
        student and teacher logits B x N x H x W [x D], N >= 2; returns a scalar in float32.

    Raises:
        TskdError: when the shapes differ.
    """

    def __init__(self, include_background: bool = True) -> None:
        super().__init__()
        self.first = 0 if include_background else 1

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over pixels and classes."""
        check_same_shape("SoftBCELoss", student, teacher)
        student_logits, teacher_logits = (
            one_vs_rest_logits(x.float())[:, self.first :] for x in (student, teacher.detach())
        )
        q = teacher_logits.sigmoid()
        on = functional.logsigmoid(teacher_logits) - functional.logsigmoid(student_logits)
        off = functional.logsigmoid(-teacher_logits) - functional.logsigmoid(-student_logits)
        return (q * on + (1 - q) * off).mean()


def one_vs_rest_logits(logits: Tensor) -> Tensor:
    """Return the logit of each class against all rest: its sigmoid is the softmax, without rounding to 0 or 1."""
    classes = range(logits.shape[1])
    rest = [logits[:, [k for k in classes if k != index]].logsumexp(1) for index in classes]
    return logits - torch.stack(rest, dim=1)
