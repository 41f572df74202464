"""The sum of named distillation terms that a config describes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from common.errors import TskdError


class Term(nn.Module):
    """One term: a loss between an output of the student and an entry of the target.

    Args:
        loss: module called as loss(student, target).
        weight: factor in the sum; 0 switches the term off.
        student: key of the student's output ("logits", "features").
        target: key of the target ("logits", "embedding", "label").
        resample: which of the two is brought to the other's resolution: "target", "student", or None for neither.

    Raises:
        TskdError: for a negative weight or another `resample`; on a call, when a key is not there.
    """

    def __init__(
        self, loss: nn.Module, weight: float, student: str, target: str, resample: str | None = "target"
    ) -> None:
        super().__init__()
        if weight < 0:
            raise TskdError(f"distillation term: expected a weight of 0 or more, found {weight}")
        if resample not in ("target", "student", None):
            raise TskdError(f"distillation term: expected resample target, student or null, found {resample!r}")
        self.loss, self.weight, self.student, self.target, self.resample = loss, weight, student, target, resample

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the unweighted value."""
        for key, mapping, side in ((self.student, outputs, "student"), (self.target, targets, "target")):
            if key not in mapping:
                raise TskdError(f"distillation term: the {side} has no {key!r}, only {sorted(mapping)}")
        student, target = outputs[self.student], targets[self.target]
        if self.resample == "target":
            target = resized(target, student)
        elif self.resample == "student":
            student = resized(student, target)
        return self.loss(student, target)


class DistillationLoss(nn.Module):
    """Weighted sum of terms; `last_terms` holds the unweighted values of the last call for logging.

    Args:
        terms: name -> `Term`; None and terms of weight 0 are left out.

    Raises:
        TskdError: when no term is left.
    """

    def __init__(self, terms: Mapping[str, Term | None]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict({name: term for name, term in terms.items() if term is not None and term.weight > 0})
        if not self.terms:
            raise TskdError("distillation loss: expected at least one term with a weight above 0, found none")
        self.last_terms: dict[str, Tensor] = {}

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted sum."""
        values = {name: term(outputs, targets) for name, term in self.terms.items()}
        self.last_terms = {name: value.detach() for name, value in values.items()}
        return sum((self.terms[name].weight * value for name, value in values.items()), next(iter(values.values())) * 0)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """`x` (B x N x H x W) at the spatial size of `like`, bilinear; unchanged where it has that size already."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return functional.interpolate(x.float(), size=like.shape[2:], mode="bilinear", align_corners=False)
