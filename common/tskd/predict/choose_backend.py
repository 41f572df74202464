"""Choose what predicts: ONNX Runtime where it gives the masks of PyTorch sooner, else PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tskd.errors import TskdError
from tskd.predict.shipped_bundle import ShippedBundle
from tskd.visible_gpus import visible

if TYPE_CHECKING:
    from tskd.predict.onnx_backend import OnnxBackend

BACKENDS = ("auto", "torch", "onnx", "onnx-int8")


class Backend(Protocol):
    """Protocol of what predicts masks: PyTorch or ONNX Runtime."""

    def mask(self, array: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
        """Return class indices of a volume [X, Y, Z] with affine, or of a picture [rows, columns(, 3)] without one."""


def load_backend(
    bundle: ShippedBundle,
    backend: str = "auto",
    device: str | None = None,
    batch_size: int = 8,
    say: Callable[[str], object] = print,
) -> Backend:
    """Return what predicts a bundle's masks.

    "auto" is ONNX Runtime where torch is not installed, or where the bundle has models/model.onnx of its weights,
    NumPy knows all that inference.json says, and no GPU is there or asked for. Else it is PyTorch.

    Args:
        bundle: the shipped bundle.
        backend: one of `BACKENDS`.
        device: such as "cuda" or "cpu"; None is CUDA where there is one with torch, and the CPU with ONNX.
        batch_size: slices of a volume in one step.
        say: takes a line on what "auto" has chosen.

    Raises:
        TskdError: as the backends, which are not replaced by another one if they were named.
    """
    if backend == "auto":
        onnx, reason = _onnx_or_reason(bundle, device, batch_size)
        say(f"computed by {'ONNX Runtime' if onnx else 'PyTorch'}{f': {reason}' if reason else ''}")
        if onnx:
            return onnx
    if backend in ("auto", "torch"):
        from tskd.predict.torch_backend import TorchBackend

        return TorchBackend(bundle, device, batch_size)
    from tskd.predict.onnx_backend import OnnxBackend

    return OnnxBackend(bundle, backend, device or "cpu", batch_size)


def _onnx_or_reason(bundle: ShippedBundle, device: str | None, batch_size: int) -> tuple[OnnxBackend | None, str]:
    """Return the backend of ONNX Runtime, or None and why not, "" where the user knows."""
    from tskd.predict.onnx_backend import FILES, OnnxBackend

    if find_spec("torch") is None:  # there is no other
        return OnnxBackend(bundle, "onnx", device or "cpu", batch_size), ""
    if device not in (None, "cpu"):
        return None, ""
    if not (bundle.root / "models" / FILES["onnx"]).is_file():
        return None, f"the bundle has no models/{FILES['onnx']}, which starts sooner (tskd export --to onnx)"
    if find_spec("onnxruntime") is None:
        return None, "onnxruntime is not installed, which starts sooner"
    if device is None and _torch_sees_cuda():
        return None, ""
    try:
        return OnnxBackend(bundle, "onnx", "cpu", batch_size), ""
    except TskdError as error:  # other weights, or steps that NumPy does not know
        return None, f"not ONNX Runtime, {str(error).removesuffix(' Use --backend torch.')}"


def _torch_sees_cuda() -> bool:
    """Return whether PyTorch probably has a CUDA device, without importing it, which takes seconds."""
    try:
        built_for_cpu = version("torch").endswith("+cpu")
    except PackageNotFoundError:
        built_for_cpu = False
    return not built_for_cpu and bool(visible())
