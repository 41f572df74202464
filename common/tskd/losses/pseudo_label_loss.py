"""Per-pixel loss against pseudo-labels, weighted by confidence."""

from __future__ import annotations

from torch import Tensor, nn

from tskd.errors import TskdError
from tskd.losses.shapes import check_same_shape


class PseudoLabelLoss(nn.Module):
    r"""Mean over pixels of weight times the distance of the student's softmax p from the pseudo-label q.

    Args:
        kind: "cross_entropy", less the entropy of q (so that it is 0 where both agree), or "mse", the squared distance
            summed over classes (Mean Teacher, arXiv 1703.01780).
        hard: whether q is its most likely class, as in FixMatch (arXiv 2001.07685), or itself.

    Shape:
        student logits and log pseudo-label B x N x H x W, weight B x 1 x H x W in [0, 1]; returns a scalar in float32
        (float64 for float64).

    Raises:
        TskdError: for another `kind`, or when the shapes differ.
    """

    def __init__(self, kind: str = "cross_entropy", hard: bool = False) -> None:
        super().__init__()
        if kind not in ("cross_entropy", "mse"):
            raise TskdError(f"PseudoLabelLoss: expected kind cross_entropy or mse, found {kind!r}")
        self.kind, self.hard = kind, hard

    def forward(self, student: Tensor, pseudo: Tensor, weight: Tensor) -> Tensor:
        """Return the mean over all pixels, those of no confidence counting 0."""
        check_same_shape("PseudoLabelLoss", student, pseudo)
        student = student if student.dtype.itemsize > 4 else student.float()
        log_q = pseudo.detach().to(student.dtype).log_softmax(1)
        q = (log_q == log_q.amax(1, keepdim=True)).to(student.dtype) if self.hard else log_q.exp()
        log_p = student.log_softmax(1)
        if self.kind == "mse":
            values = (log_p.exp() - q).square().sum(1, keepdim=True)
        else:
            entropy = 0 if self.hard else (q * log_q).sum(1, keepdim=True)
            values = entropy - (q * log_p).sum(1, keepdim=True)
        return (values * weight).mean()
