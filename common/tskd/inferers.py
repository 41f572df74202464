"""Mixed precision for MONAI engines on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch.overrides import TorchFunctionMode

from tskd.errors import TskdError


def autocast_dtype(name: str | None) -> torch.dtype | None:
    """Return the type of `torch.autocast` in training: bfloat16, or None for none, of the names bfloat16 and float32.

    `monai.bundle run` passes over an override that is None, so that single precision has a name, too.

    Raises:
        TskdError: another type; float16 would need a gradient scaler, without which small gradients vanish.
    """
    if name not in (None, "float32", "bfloat16"):
        raise TskdError(f"amp_dtype: expected bfloat16, float32 or None, found {name!r}")
    return torch.bfloat16 if name == "bfloat16" else None


class Float32Depthwise(TorchFunctionMode):
    """Grouped convolutions in float32 in spite of autocast: a CPU's are up to four times slower in bfloat16.

    The result is rounded to the type of the input again. All else is as autocast has it.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call the function, a grouped convolution out of autocast."""
        if function is not torch.conv2d or len(args) < 7 or args[6] == 1:
            return function(*args, **(kwargs or {}))
        image, weight, bias, *rest = args
        with torch.autocast("cpu", enabled=False):
            result = function(image.float(), weight.float(), None if bias is None else bias.float(), *rest)
        return result.to(image.dtype)


@contextmanager
def mixed_precision(
    device: str, dtype: torch.dtype | None, network: Callable[..., Any] | None = None
) -> Iterator[None]:
    """Autocast for the forward of a network, with depthwise convolutions in float32 on a CPU.

    Args:
        device: kind of device, such as "cpu".
        dtype: of autocast, or None for float32 throughout.
        network: what is called; a compiled one chooses its own kernels.
    """
    if dtype is None:
        yield
        return
    with torch.autocast(device, dtype=dtype):
        if device != "cpu" or hasattr(network, "_orig_mod"):
            yield
        else:
            with Float32Depthwise():
                yield


def averaged_over_flips(inferer: Callable[..., Any], flips: Sequence[str] = ()) -> Callable[..., Any]:
    """Return an inferer of the mean logits of images and their mirror images, as a shipped bundle's with these `flips`.

    Args:
        inferer: from images B x C x X x Y(x Z) and a network to logits.
        flips: axes that are flipped, "x", "y" or both, then in all four ways; for none it is `inferer` itself.

    Raises:
        TskdError: another axis.
    """
    if unknown := [axis for axis in flips if axis not in ("x", "y")]:
        raise TskdError(f"flips: expected some of x, y, found {', '.join(map(str, unknown))}")
    if not flips:
        return inferer
    ways = [x + y for x in ([[], [2]] if "x" in flips else [[]]) for y in ([[], [3]] if "y" in flips else [[]])]

    def average(inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        total = sum(inferer(inputs.flip(way), network, *args, **kwargs).flip(way) for way in ways)
        return total / len(ways)

    return average


class AutocastInferer(SimpleInferer):
    """`SimpleInferer` under `torch.autocast`, with outputs in float32 so that losses are computed in full precision.

    MONAI's own `amp` switch is written for CUDA; bfloat16 needs no gradient scaler and runs on CPU as well.

    Args:
        dtype: "bfloat16", or "float32" or None for no autocast.
        network_args: further arguments of the network's forward.

    Raises:
        TskdError: another dtype.
    """

    def __init__(self, dtype: str | None = None, network_args: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.dtype = autocast_dtype(dtype)
        self.network_args = dict(network_args or {})

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return `network(inputs)`: a tensor, or a dict or list of such, in float32."""
        with mixed_precision(inputs.device.type, self.dtype, network):
            outputs = network(inputs, *args, **self.network_args, **kwargs)
        return _in_float32(outputs)


def _in_float32(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {name: _in_float32(value) for name, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        return [_in_float32(value) for value in outputs]
    return outputs.float()
