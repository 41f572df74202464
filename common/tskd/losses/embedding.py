"""Distillation of the image embedding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tskd.errors import TskdError
from tskd.losses.shapes import check_same_shape


class EmbeddingLoss(nn.Module):
    """Distance between the student's (projected) features and the teacher's image embedding.

    Features of a teacher as a target: FitNets, Romero et al., arXiv 1412.6550. "mse" is mean (s - t)^2 / var(t), where
    the variance of the teacher's embedding in the batch (ours) frees its weight from the teacher's scale; "cosine" is
    mean (1 - <s, t> / (|s| |t|)), along the channels.

    Args:
        kind: "mse" or "cosine".

    Shape:
        student and teacher B x N x H x W [x D]; returns a scalar in float32.

    Raises:
        TskdError: for another kind, or when the shapes differ.
    """

    def __init__(self, kind: str = "mse") -> None:
        super().__init__()
        if kind not in ("mse", "cosine"):
            raise TskdError(f"EmbeddingLoss: expected kind mse or cosine, found {kind!r}")
        self.kind = kind

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the distance."""
        check_same_shape("EmbeddingLoss", student, teacher)
        student, teacher = student.float(), teacher.detach().float()
        if self.kind == "mse":
            return functional.mse_loss(student, teacher) / (teacher.var() + 1e-6)
        return (1 - functional.cosine_similarity(student, teacher, dim=1)).mean()
