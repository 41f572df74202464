"""Per-pixel distillation, weighted by the teacher's confidence."""

from __future__ import annotations

import math

from torch import Tensor, nn

from tskd.errors import TskdError
from tskd.losses.logits_kl import pixel_kl
from tskd.losses.shapes import check_same_shape


class ConfidenceKLLoss(nn.Module):
    r"""sum_x w(x) KL_T(x) / sum_x w(x), w = (1 - H(p) / log N)^power, p the teacher's softmax, H its entropy.

    KL_T is the divergence of `LogitsKLLoss` at pixel x. Entropy as the measure of a prediction's uncertainty: UA-MT,
    arXiv 1907.07034. w is 1 where the teacher is certain and 0 where all classes are alike to it; the entropy is taken
    at temperature 1, whatever T is.

    Args:
        temperature: T of the divergence.
        power: 0 or more; 0 weighs all pixels the same, larger numbers fade doubtful pixels out sooner.

    Shape:
        student and teacher logits B x N x H x W [x D], N >= 2; returns a scalar in float32, 0 (with a gradient of 0)
        where the teacher is certain of nothing.

    Raises:
        TskdError: for a negative power, and when the shapes differ.
    """

    def __init__(self, temperature: float = 2.0, power: float = 1.0) -> None:
        super().__init__()
        if power < 0:
            raise TskdError(f"ConfidenceKLLoss: expected a power of 0 or more, found {power}")
        self.temperature, self.power = temperature, power

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the weighted mean."""
        check_same_shape("ConfidenceKLLoss", student, teacher)
        log_p = teacher.detach().float().log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1)
        weight = (1 - entropy / math.log(teacher.shape[1])).clamp(min=0) ** self.power
        return (weight * pixel_kl(student, teacher, self.temperature)).sum() / weight.sum().clamp(min=1e-6)
