"""Mixed precision for MONAI engines on any device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.inferers import SimpleInferer


class AutocastInferer(SimpleInferer):
    """`SimpleInferer` under `torch.autocast`, with outputs in float32 so that losses are computed in full precision.

    MONAI's own `amp` switch is written for CUDA; bfloat16 needs no gradient scaler and runs on CPU as well.

    Args:
        dtype: autocast type ("bfloat16", "float16"), or None for no autocast.
        network_args: further arguments of the network's forward.
    """

    def __init__(self, dtype: str | None = None, network_args: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.dtype = getattr(torch, dtype) if dtype else None
        self.network_args = dict(network_args or {})

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Returns `network(inputs)`: a tensor, or a dict of tensors, in float32."""
        with torch.autocast(inputs.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            outputs = network(inputs, *args, **self.network_args, **kwargs)
        if isinstance(outputs, dict):
            return {name: value.float() for name, value in outputs.items()}
        return outputs.float()
