"""Soft labels that are looked at again: stored against recomputed."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tskd.distillation.soft_labels.manifest import case_file
from tskd.distillation.soft_labels.predict import Entry, Predictions
from tskd.errors import TskdError

logger = logging.getLogger(__name__)
TOLERANCE = 0.01  # of the largest value: far above what float16 and the batches' order change
AUTOCAST_TOLERANCE = 0.05  # bfloat16 differs by 0.03 from single precision


def check_soft_labels(
    predictions: Predictions, entries: Sequence[Entry], folder: Path, count: int, tolerance: float | None = None
) -> float:
    """Recompute `count` random entries and compare them with their files.

    Args:
        predictions: the teacher as it was when the files were written.
        entries: entries that all have a file in `folder`.
        folder: the folder of soft labels.
        count: how many entries; all where there are fewer.
        tolerance: largest difference allowed, as a share of the largest recomputed value of the case; None for 0.01,
            or 0.05 under autocast.

    Returns:
        The largest difference found, as such a share; it is logged too.

    Raises:
        TskdError: naming every entry whose file is damaged or differs by more than the tolerance.
    """
    if tolerance is None:
        tolerance = TOLERANCE if predictions.dtype is None else AUTOCAST_TOLERANCE
    chosen = random.SystemRandom().sample(list(entries), min(count, len(entries)))
    largest, problems = 0.0, []
    for names, batch in predictions(chosen):
        for case, arrays in zip(names, batch, strict=True):
            try:
                difference = _difference(load_file(case_file(folder, case)), arrays)
            except (OSError, SafetensorError) as error:
                problems.append(f"{case}: cannot be read ({error})")
                continue
            largest = max(largest, difference)
            if not difference <= tolerance:
                problems.append(f"{case}: differs by {difference:.3g}")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise TskdError(
            f"{folder}: expected the soft labels that this teacher gives, within {tolerance:g} of the largest value, "
            f"found {len(problems)} others among {len(chosen)} random entries: {'; '.join(problems[:5])}{more}. Delete "
            "the folder and write them again."
        )
    logger.info("%d random entries recomputed: largest difference %.2g of the largest value", len(chosen), largest)
    return largest


def _difference(stored: dict[str, Tensor], recomputed: dict[str, Tensor]) -> float:
    if {key: value.shape for key, value in stored.items()} != {key: value.shape for key, value in recomputed.items()}:
        return float("inf")
    shares = [
        (stored[key].float() - value.float()).abs().max() / value.float().abs().max().clamp(min=1e-6)
        for key, value in recomputed.items()
    ]
    return float(torch.stack(shares).max())
