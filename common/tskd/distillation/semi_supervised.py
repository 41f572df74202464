"""Pseudo-labels between a cached teacher and the student's own average: distillation and FixMatch are its two ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn
from torch.nn import functional

from tskd.distillation.augmentation import BatchAugmentation
from tskd.distillation.distillation_loss import without_labels
from tskd.distillation.step import AugmentedBatch
from tskd.errors import TskdError

SMALLEST, LARGEST = 0.02, 0.4  # area of the pasted box as a share of the image, as in UniMatch (arXiv 2208.09910)


class SemiSupervisedBatch(AugmentedBatch):
    """`prepare_batch` that teaches unlabelled images by a mixture of teacher and own average, seen in a strong view.

    The weak view is `augmentation`'s. The pseudo-label of an unlabelled image is (1 - r) x the cached teacher + r x the
    average on the weak view; the student sees the image once more changed by `strong` and by CutMix. Labelled images
    stay as they are.

    Args:
        augmentation: the weak view, of all keys together, or None.
        average: the student's moving average (`tskd.handlers.averaged_network`).
        ratio: r from 0 (the teacher alone: distillation) to 1 (no teacher: FixMatch), or "agreement": half the Dice
            between the two, image by image, so that the student counts where the teacher confirms it.
        threshold: pixels whose most likely class is less likely than this have weight 0.
        cutmix: probability that a box of another unlabelled image is pasted in.
        strong: changes of intensity and colour (a `BatchAugmentation` without geometry), or None.
        targets: keys of the target.
        images: "all", or "unlabelled" where the loss reads no pseudo-label of a labelled image (as `Term.images`): the
            average is then asked for the others alone, and a labelled image's pseudo-label is 1 / N everywhere.
        inferer: called with images and the average, such as the training's, whose precision the average then has.

    Raises:
        TskdError: for another ratio or other `images`.
    """

    def __init__(
        self,
        augmentation: BatchAugmentation | None,
        average: nn.Module,
        ratio: float | str = "agreement",
        threshold: float = 0.95,
        cutmix: float = 0.5,
        strong: nn.Module | None = None,
        targets: Sequence[str] = ("label", "logits", "weight"),
        images: str = "all",
        inferer: Callable[[Tensor, nn.Module], Tensor] | None = None,
    ) -> None:
        if not (ratio == "agreement" or (isinstance(ratio, int | float) and 0 <= ratio <= 1)):
            raise TskdError(f"pseudo_ratio: expected a number from 0 to 1 or agreement, found {ratio!r}")
        if images not in ("all", "unlabelled"):
            raise TskdError(f"taught_images: expected all or unlabelled, found {images!r}")
        made = {"weight"} | ({"logits"} if ratio == 1 else set())
        super().__init__(augmentation, sorted({*targets, "label"} - made))
        self.average, self.ratio, self.threshold, self.cutmix, self.strong = average, ratio, threshold, cutmix, strong
        self.images, self.inferer = images, inferer or SimpleInferer()

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (image, target) with the log pseudo-label as `logits` and its `weight`, at the image's size."""
        image, target = super().__call__(batchdata, device, non_blocking, **kwargs)
        assert isinstance(target, dict)
        with torch.no_grad():
            return self.teach(image, target)

    def teach(self, image: Tensor, target: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the strong view and the pseudo-labels of a batch in its weak view."""
        unlabelled = without_labels(target["label"]).nonzero()[:, 0]
        rows = unlabelled if self.images == "unlabelled" else torch.arange(len(image), device=image.device)
        pseudo_labels = mixed(self._teacher(target, image, rows), self._student(image[rows]), self.ratio)
        classes = pseudo_labels.shape[1]
        alike = pseudo_labels.new_full((len(image), classes, *image.shape[2:]), 1 / classes)
        pseudo = alike.index_copy(0, rows, pseudo_labels)
        weight = (pseudo.amax(1, keepdim=True) >= self.threshold).to(pseudo.dtype)
        view = image[unlabelled]
        view = self.strong({"image": view})["image"] if self.strong is not None and len(view) else view
        shuffled = unlabelled[torch.randperm(len(unlabelled), device=unlabelled.device)]
        order = torch.arange(len(image), device=image.device).index_copy(0, unlabelled, shuffled)
        box = boxes(len(image), image.shape[2:], self.cutmix, image.device)
        box[~without_labels(target["label"])] = False
        strong = image.index_copy(0, unlabelled, view)
        parts = {**target, "image": strong, "logits": pseudo, "weight": weight}
        parts = {key: torch.where(_box_of(value, box), value[order], value) for key, value in parts.items()}
        parts["logits"] = parts["logits"].clamp(min=torch.finfo(torch.float32).tiny).log()
        return parts.pop("image"), parts

    def _teacher(self, target: Mapping[str, Tensor], image: Tensor, rows: Tensor) -> Tensor | None:
        if self.ratio == 1:
            return None
        q = target["logits"][rows].to(image.dtype).softmax(1)
        if q.shape[2:] != image.shape[2:]:
            q = functional.interpolate(q, size=image.shape[2:], mode="bilinear", align_corners=False)
        return q

    def _student(self, image: Tensor) -> Tensor | None:
        if self.ratio == 0:
            return None
        network = getattr(self.average, "module", self.average)
        training = network.training  # while its batch norm statistics are estimated, and they ask for batches
        answer = self.inferer(image, network.eval()).softmax(1)
        network.train(training)
        return answer


def _box_of(value: Tensor, box: Tensor) -> Tensor:
    """Return B x 1 x H x W boxes at a target's resolution, such as an embedding's: where they cover half a cell."""
    if value.shape[2:] == box.shape[2:]:
        return box
    return functional.interpolate(box.to(torch.float32), size=value.shape[2:], mode="area") > 0.5


def mixed(teacher: Tensor | None, student: Tensor | None, ratio: float | str) -> Tensor:
    """Return (1 - r) x teacher + r x student, B x N x H x W probabilities; r by `SemiSupervisedBatch`."""
    if teacher is None or student is None:
        given = student if teacher is None else teacher
        assert given is not None
        return given
    r = agreement(teacher, student) / 2 if ratio == "agreement" else float(ratio)
    return (1 - r) * teacher + r * student


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Return Dice of the foregrounds of two B x N x H x W probability maps, B x 1 x 1 x 1; 1 where both see none."""
    p, q = first[:, 1:], second[:, 1:]
    overlap, total = (p * q).sum((1, 2, 3)), (p.square() + q.square()).sum((1, 2, 3))
    return ((2 * overlap + 1e-6) / (total + 1e-6)).view(-1, 1, 1, 1)


def boxes(count: int, size: Sequence[int], probability: float, device: torch.device) -> Tensor:
    """Return `count` x 1 x H x W booleans: a random box, each with `probability` (CutMix, arXiv 1905.04899)."""
    draws = torch.rand(count, 5, device=device)
    area = SMALLEST + (LARGEST - SMALLEST) * draws[:, 0]
    aspect = torch.exp((draws[:, 1] - 0.5) * 2 * 1.2)
    inside = (draws[:, 4] < probability).view(-1, 1)
    spans = []
    for side, share, start in zip(size, ((area * aspect).sqrt(), (area / aspect).sqrt()), (2, 3), strict=True):
        length = share.clamp(max=1)
        first = draws[:, start] * (1 - length)
        centres = (torch.arange(side, device=device) + 0.5) / side
        spans.append((centres >= first[:, None]) & (centres < (first + length)[:, None]) & inside)
    return (spans[0][:, :, None] & spans[1][:, None, :])[:, None]
