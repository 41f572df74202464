"""The sum of named distillation terms that a config describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass

from torch import Tensor, nn
from torch.nn import functional

from tskd.data.datalist import IGNORE
from tskd.errors import TskdError
from tskd.losses import description

Schedule = Callable[[float], float]
EPOCHS = (0, 1, 2, 5, 10, 20, 50, 100)  # where a schedule without a text of its own is looked at


class Term(nn.Module):
    """One term: a loss between an output of the student and an entry of the target.

    Args:
        loss: module called as loss(student, target), or with `regions` as loss(student, target, regions).
        weight: factor in the sum, or a schedule from epochs done to the factor; 0 switches the term off.
        student: key of the student's output: "logits", "features" (those of the tap) or "embedding" (these projected).
        target: key of the target ("logits", "embedding", "label").
        resample: which of the two is brought to the other's resolution: "target", "student", or None for neither.
        regions: another key of the target that the loss takes as it is, or None.
        temperature: schedule of the loss's attribute `temperature`, or None to leave it.
        images: "all", or "unlabelled": only the images of the batch without any labelled pixel (joint training, where
            the others learn from their labels).

    Raises:
        TskdError: for a negative weight, another `resample` or `images`, or a temperature for a loss without one;
            on a call, when a key is not there.
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float | Schedule,
        student: str,
        target: str,
        resample: str | None = "target",
        regions: str | None = None,
        temperature: Schedule | None = None,
        images: str = "all",
    ) -> None:
        super().__init__()
        if images not in ("all", "unlabelled"):
            raise TskdError(f"distillation term: expected images all or unlabelled, found {images!r}")
        if resample not in ("target", "student", None):
            raise TskdError(f"distillation term: expected resample target, student or null, found {resample!r}")
        if temperature is not None and not hasattr(loss, "temperature"):
            raise TskdError(f"distillation term: {type(loss).__name__} has no temperature to schedule; leave it out")
        self.loss, self.student, self.target, self.resample, self.regions = loss, student, target, resample, regions
        self.images = images
        self.weight_schedule = weight if callable(weight) else None
        self.temperature_schedule = temperature
        self.weight = 0.0 if callable(weight) else weight
        self.set_epoch(0)

    @property
    def is_off(self) -> bool:
        """Whether the term never counts."""
        return self.weight_schedule is None and self.weight == 0

    @property
    def targets(self) -> set[str]:
        """Keys of the target that the term reads."""
        labels = {"label"} if self.images == "unlabelled" else set()
        return {self.target} | ({self.regions} if self.regions is not None else set()) | labels

    @property
    def description(self) -> str:
        """Weight, loss with its settings, and what it compares; schedules in place of the numbers that they set."""
        more = {} if self.temperature_schedule is None else {"temperature": _schedule_text(self.temperature_schedule)}
        weight = f"{self.weight:g}" if self.weight_schedule is None else _schedule_text(self.weight_schedule)
        compared = [self.student, self.target, *([self.regions] if self.regions is not None else [])]
        return f"{weight} {description(self.loss, more)} of {', '.join(compared)} at {self.resample}" + (
            "" if self.images == "all" else f" of {self.images} images"
        )

    def set_epoch(self, epoch: float) -> None:
        """Set the scheduled numbers to those after `epoch` epochs."""
        if self.weight_schedule is not None:
            self.weight = self.weight_schedule(epoch)
        if self.temperature_schedule is not None:
            self.loss.temperature = self.temperature_schedule(epoch)  # type: ignore[assignment]
        if self.weight < 0:
            raise TskdError(f"distillation term: expected a weight of 0 or more, found {self.weight}")

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the unweighted value."""
        student, target = _get(outputs, self.student, "student"), _get(targets, self.target, "target")
        regions = None if self.regions is None else _get(targets, self.regions, "target")
        if self.images == "unlabelled":
            rows = without_labels(_get(targets, "label", "target")).nonzero()[:, 0]  # the one wait for a GPU
            if not len(rows):
                return student.sum() * 0
            student, target = student.index_select(0, rows), target.index_select(0, rows)
            regions = None if regions is None else regions.index_select(0, rows)
        if self.resample == "target":
            target = resized(target, student)
        elif self.resample == "student":
            student = resized(student, target)
        return self.loss(student, target) if regions is None else self.loss(student, target, regions)


class DistillationLoss(nn.Module):
    """Weighted sum of terms; `last_terms` holds the unweighted values of the last call for logging.

    Args:
        terms: name -> `Term`; None and terms of weight 0 are left out.

    Attributes:
        targets: keys of the target that the terms read, sorted.
        description: the terms with their weights and settings, which identifies a checkpoint.

    Raises:
        TskdError: when no term is left.
    """

    def __init__(self, terms: Mapping[str, Term | None]) -> None:
        super().__init__()
        kept = {name: term for name, term in terms.items() if term is not None and not term.is_off}
        if not kept:
            raise TskdError("distillation loss: expected at least one term with a weight above 0, found none")
        self.terms: Mapping[str, Term] = nn.ModuleDict(kept)  # type: ignore[assignment]
        self.targets = sorted(set().union(*(term.targets for term in kept.values())))
        self.description = "; ".join(f"{name}: {term.description}" for name, term in kept.items())
        self.last_terms: dict[str, Tensor] = {}

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum."""
        values = self.values(outputs, targets)
        self.last_terms = {name: value.detach() for name, value in values.items()}
        return sum((self.terms[name].weight * value for name, value in values.items()), next(iter(values.values())) * 0)

    def values(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the unweighted value of each term."""
        return {name: term(outputs, targets) for name, term in self.terms.items()}

    def set_epoch(self, epoch: float) -> None:
        """Set the scheduled weights and temperatures to those after `epoch` epochs."""
        for term in self.terms.values():
            term.set_epoch(epoch)


def without_labels(label: Tensor) -> Tensor:
    """Return which images of a batch of labels (B x 1 x H x W) have no labelled pixel: B booleans."""
    return (label == IGNORE).flatten(1).all(1)


def _get(mapping: Mapping[str, Tensor], key: str, side: str) -> Tensor:
    if key not in mapping:
        raise TskdError(f"distillation term: the {side} has no {key!r}, only {sorted(mapping)}")
    return mapping[key]


def _schedule_text(schedule: Schedule) -> str:
    """Return the schedule's own text, or its values: that of a plain function would hold its address."""
    if is_dataclass(schedule):
        return str(schedule)
    return f"{type(schedule).__name__}({', '.join(f'{schedule(epoch):g}' for epoch in EPOCHS)})"


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Return `x` (2-D: B x N x H x W) at the spatial size of `like`, bilinear; unchanged where it has that size."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return functional.interpolate(x.float(), size=like.shape[2:], mode="bilinear", align_corners=False)
