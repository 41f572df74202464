"""Learning rates over a training: linear warm-up, then a decay to zero."""

from __future__ import annotations

from monai.optimizers import WarmupCosineSchedule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from common.errors import TskdError


def warmup_schedule(
    optimizer: Optimizer, kind: str, warmup_steps: int, total_steps: int, power: float = 0.9
) -> LambdaLR:
    """A schedule to step after every iteration.

    Args:
        optimizer: its learning rate is the peak.
        kind: "cosine" (MONAI's `WarmupCosineSchedule`), or "poly": peak * (1 - (step - warmup) / total) ** power after
            the warm-up, as SAMed (arXiv 2304.13785) has it.
        warmup_steps: iterations of the linear warm-up.
        total_steps: iterations of the whole training.
        power: exponent of the polynomial decay.

    Raises:
        TskdError: for an unknown kind.
    """
    if kind == "cosine":
        return WarmupCosineSchedule(optimizer, warmup_steps=warmup_steps, t_total=total_steps)
    if kind != "poly":
        raise TskdError(f"schedule: expected cosine or poly, found {kind!r}")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, 1 - (step - warmup_steps) / total_steps) ** power

    return LambdaLR(optimizer, factor)
