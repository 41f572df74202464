"""Mixed precision for MONAI engines on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer


class AutocastInferer(SimpleInferer):
    """`SimpleInferer` under `torch.autocast`, with outputs in float32 so that losses are computed in full precision.

    MONAI's own `amp` switch is written for CUDA; bfloat16 needs no gradient scaler and runs on CPU as well.

    Args:
        dtype: autocast type ("bfloat16", "float16"), or None for no autocast.
    """

    def __init__(self, dtype: str | None = None) -> None:
        super().__init__()
        self.dtype = getattr(torch, dtype) if dtype else None

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Returns `network(inputs)`: a tensor, or a dict of tensors, in float32."""
        with torch.autocast(inputs.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            outputs = network(inputs, *args, **kwargs)
        if isinstance(outputs, dict):
            return {name: value.float() for name, value in outputs.items()}
        return outputs.float()
