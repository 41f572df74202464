"""Describe a loss by name and settings, to tell runs apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def description(loss: Any, more: Mapping[str, str] | None = None) -> str:
    """Return name and settings of a loss, for example "DiceCELoss(ce_weight 0.2, dice_weight 0.8)".

    Args:
        loss: a module, whose numbers, texts and buffers are its settings; of anything else the name is all there is.
        more: further settings, or other values for these.
    """
    if not isinstance(loss, nn.Module):
        return getattr(loss, "__name__", type(loss).__name__)
    settings = {
        f"{prefix}.{name}".lstrip("."): f"{value:g}" if isinstance(value, int | float) else value
        for prefix, module in loss.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float | str) and not name.startswith("_") and name != "training"
    } | {name: str(value.tolist()) for name, value in loss.named_buffers()}
    options = ", ".join(f"{name} {value}" for name, value in sorted({**settings, **(more or {})}.items()))
    return f"{type(loss).__name__}({options})"
