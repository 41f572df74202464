"""Channel-wise distillation: each channel as a distribution over the image."""

from __future__ import annotations

from torch import Tensor, nn

from tskd.losses.shapes import check_same_shape, check_temperature


class ChannelWiseLoss(nn.Module):
    r"""T^2 / N * sum_c KL(phi(teacher_c) || phi(student_c)), phi the softmax over the positions of channel c.

    CWD, Shu et al., arXiv 2011.13256, mean over the batch. Each channel (class) becomes a distribution over the image,
    so that a small organ counts as much as the background. A shift of a whole channel changes nothing.

    Args:
        temperature: T; larger spreads the attention over more of the image. The paper takes 4.

    Shape:
        student and teacher B x N x H x W [x D], logits or features of as many channels; returns a scalar in float32.

    Raises:
        TskdError: when the shapes differ, or for a temperature of 0 or less.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean divergence over batch and channels."""
        check_same_shape("ChannelWiseLoss", student, teacher)
        check_temperature(self.temperature)
        log_p = (teacher.detach().float().flatten(2) / self.temperature).log_softmax(2)
        log_q = (student.float().flatten(2) / self.temperature).log_softmax(2)
        return self.temperature**2 * (log_p.exp() * (log_p - log_q)).sum(2).mean()
