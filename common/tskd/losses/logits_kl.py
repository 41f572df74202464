"""Per-pixel knowledge distillation of the class distribution."""

from __future__ import annotations

from torch import Tensor, nn

from tskd.losses.shapes import check_same_shape, check_temperature


class LogitsKLLoss(nn.Module):
    r"""Mean over pixels of T^2 * KL(softmax(teacher / T) || softmax(student / T)).

    Hinton et al., arXiv 1503.02531, applied per pixel. A true divergence: 0 at identity, never negative.

    Args:
        temperature: T; larger shows the student more of the teacher's second choices.

    Shape:
        student and teacher logits B x N x H x W [x D]; returns a scalar in float32.

    Raises:
        TskdError: when the shapes differ, or for a temperature of 0 or less.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean divergence."""
        check_same_shape("LogitsKLLoss", student, teacher)
        return pixel_kl(student, teacher, self.temperature).mean()


def pixel_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student) of the class distributions per pixel: B x N x ... to B x ..., in float32."""
    check_temperature(temperature)
    log_p = (teacher.detach().float() / temperature).log_softmax(1)
    log_q = (student.float() / temperature).log_softmax(1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)
