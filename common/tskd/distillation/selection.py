"""Which synthetic images a teacher can tell organs in: those it is sure of, and no others, are worth learning from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tskd.distillation.soft_labels.ensemble import AverageSoftLabelsd
from tskd.errors import TskdError

VISIBLE = 0.05  # probability of a structure from which on a pixel counts
FEWEST = 0.005  # share of the image that the structures of one worth keeping cover


def keep_surest(
    entries: Sequence[Mapping[str, Any]], count: int | None, weights: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """Of the synthetic entries the `count` of whose structures the teacher is surest, in their order; all others stay.

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
            f"surest_synthetic: expected a number from 1 to the {len(synthetic)} synthetic images, found {count}"
        )
    read = AverageSoftLabelsd(weights, embedding=False)
    doubts = {entry["image"]: doubt(read(entry)["logits"]) for entry in synthetic}
    kept = set(sorted(doubts, key=doubts.__getitem__)[:count])
    return [dict(entry) for entry in entries if entry["part"] != "synthetic" or entry["image"] in kept]


def doubt(logits: Tensor) -> float:
    """Mean entropy, in nats, of the classes where a structure is at least possible; infinite where hardly one is seen.

    Args:
        logits: C x h x w.
    """
    shares = logits.float().softmax(0)
    if (shares.argmax(0) > 0).float().mean() <= FEWEST:
        return float("inf")
    entropy = -shares.xlogy(shares).sum(0)
    return float(entropy[1 - shares[0] > VISIBLE].mean())
