"""Select the synthetic images on which the teacher is most confident."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tskd.distillation.soft_labels.ensemble import AverageSoftLabelsd
from tskd.errors import TskdError

VISIBLE = 0.05  # probability of a structure from which on a pixel counts
MIN_FOREGROUND = 0.005  # share of the image that the structures of one worth keeping cover


def select_confident(
    entries: Sequence[Mapping[str, Any]], count: int | None, weights: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """Select the `count` synthetic entries of lowest mean entropy, in their order; all other entries stay.

    Args:
        entries: those of `add_teachers` on `transfer_entries`, with `part` and `soft_labels`.
        count: how many synthetic images are kept; None keeps all.
        weights: as of `add_teachers`.

    Raises:
        TskdError: fewer synthetic images than `count`, or a file that cannot be read.
    """
    if count is None:
        return [dict(entry) for entry in entries]
    synthetic = [entry for entry in entries if entry["part"] == "synthetic"]
    if not 0 < count <= len(synthetic):
        raise TskdError(
            f"max_confident_synthetic: expected a number from 1 to the {len(synthetic)} synthetic images, found {count}"
        )
    read = AverageSoftLabelsd(weights, embedding=False)
    # by file, since images of two generators may have one name
    entropies = {entry["image"]: mean_entropy(read(entry)["logits"]) for entry in synthetic}
    selected = set(sorted(entropies, key=entropies.__getitem__)[:count])
    return [dict(entry) for entry in entries if entry["part"] != "synthetic" or entry["image"] in selected]


def mean_entropy(logits: Tensor) -> float:
    """Return the mean entropy, in nats, of the pixels where a structure is possible; infinite where hardly one is seen.

    Args:
        logits: C x h x w.
    """
    probabilities = logits.float().softmax(0)
    if (probabilities.argmax(0) > 0).float().mean() <= MIN_FOREGROUND:
        return float("inf")
    entropy = -probabilities.xlogy(probabilities).sum(0)
    # background that is certain would own the mean
    return float(entropy[1 - probabilities[0] > VISIBLE].mean())
