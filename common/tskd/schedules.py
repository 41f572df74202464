"""Learning rate schedules: linear warm-up, then a decay to zero (`poly`: nearly, after a warm-up)."""

from __future__ import annotations

import logging
import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tskd.errors import TskdError

logger = logging.getLogger(__name__)


def warmup_schedule(
    optimizer: Optimizer, kind: str, warmup_steps: int, total_steps: int, power: float = 0.9, end: float = 0.0
) -> LambdaLR:
    """Return a schedule to step after every iteration.

    Its state is the step alone, so a training that is continued with more epochs follows the schedule of the longer
    one (the state of MONAI's `WarmupCosineSchedule` holds the former length).

    Args:
        optimizer: its learning rate is the peak.
        kind: "cosine", half a period from the peak to 0 after the warm-up, the values of MONAI's
            `WarmupCosineSchedule`; or "poly": peak * (1 - (step - warmup) / total) ** power after the warm-up, as SAMed
            (arXiv 2304.13785) has it.
        warmup_steps: iterations of the linear warm-up.
        total_steps: iterations of the whole training.
        power: exponent of the polynomial decay.
        end: share of the peak that the rate does not fall below after the warm-up.

    Raises:
        TskdError: for an unknown kind.
    """
    if kind not in ("cosine", "poly"):
        raise TskdError(f"schedule: expected cosine or poly, found {kind!r}")
    if warmup_steps >= total_steps:
        logger.warning(
            "the warm-up (warmup_steps = %d) is not over when the training ends after %d", warmup_steps, total_steps
        )

    def cosine(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return max(end, 0.5 * (1 + math.cos(math.pi * progress)))

    def poly(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(end, max(0.0, 1 - (step - warmup_steps) / total_steps) ** power)

    return LambdaLR(optimizer, cosine if kind == "cosine" else poly)
