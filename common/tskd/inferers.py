"""Mixed precision for MONAI engines on any device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.inferers import SimpleInferer

from tskd.errors import TskdError


def autocast_dtype(name: str | None) -> torch.dtype | None:
    """Return the type of `torch.autocast` in training: bfloat16, or None for none.

    Raises:
        TskdError: another type; float16 would need a gradient scaler, without which small gradients vanish.
    """
    if name not in (None, "bfloat16"):
        raise TskdError(f"amp_dtype: expected bfloat16 or None, found {name!r}")
    return None if name is None else torch.bfloat16


class AutocastInferer(SimpleInferer):
    """`SimpleInferer` under `torch.autocast`, with outputs in float32 so that losses are computed in full precision.

    MONAI's own `amp` switch is written for CUDA; bfloat16 needs no gradient scaler and runs on CPU as well.

    Args:
        dtype: "bfloat16", or None for no autocast.
        network_args: further arguments of the network's forward.

    Raises:
        TskdError: another dtype.
    """

    def __init__(self, dtype: str | None = None, network_args: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.dtype = autocast_dtype(dtype)
        self.network_args = dict(network_args or {})

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return `network(inputs)`: a tensor, or a dict of tensors, in float32."""
        with torch.autocast(inputs.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            outputs = network(inputs, *args, **self.network_args, **kwargs)
        if isinstance(outputs, dict):
            return {name: value.float() for name, value in outputs.items()}
        return outputs.float()
