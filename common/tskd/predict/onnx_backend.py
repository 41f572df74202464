"""Predict masks with ONNX Runtime: starts in a second, needs neither torch nor MONAI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tskd.cpus import openmp_threads
from tskd.errors import TskdError
from tskd.files import sha256
from tskd.predict.numpy_pipeline import NumpyPipeline
from tskd.predict.shipped_bundle import ShippedBundle

FILES = {"onnx": "model.onnx", "onnx-int8": "model_int8.onnx"}  # in a bundle's models/, by backend


class OnnxBackend:
    """Backend of ONNX Runtime: a bundle's ONNX file between preprocessing and postprocessing in NumPy.

    Args:
        bundle: the shipped bundle.
        kind: "onnx" or "onnx-int8".
        device: "cpu", or "cuda" with `onnxruntime-gpu`.
        batch_size: slices of a volume in one call.

    Raises:
        TskdError: no such file, a damaged one, one of other weights than model.pt or for other images, ONNX Runtime or
            its CUDA is not installed, or inference.json holds what MONAI alone can run.
    """

    def __init__(self, bundle: ShippedBundle, kind: str = "onnx", device: str = "cpu", batch_size: int = 8) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise TskdError(
                "--backend onnx: expected ONNX Runtime, found it not installed. pip install onnxruntime"
            ) from error
        make = f"tskd export {bundle.root} --to {kind}"
        path = bundle.root / "models" / FILES[kind]
        if not path.is_file():
            raise TskdError(f"{path}: expected the network as ONNX, found no such file. Make it: {make}")
        if bundle.exported.get(f"models/{path.name}") not in (None, sha256(path)):
            raise TskdError(
                f"{path}: expected the file that metadata.json names, found another or a damaged one. Make it again: "
                f"{make} --overwrite"
            )
        self.session = _session(onnxruntime, path, device, f"Make it again: {make} --overwrite")
        expected = self.session.get_modelmeta().custom_metadata_map.get("model_sha256")
        if bundle.model.is_file() and expected not in (None, sha256(bundle.model)):
            raise TskdError(
                f"{path}: expected the weights of {bundle.model.name}, found it made of other ones, or the weights "
                f"damaged since. Make it again: {make} --overwrite"
            )
        shape = tuple(self.session.get_inputs()[0].shape[1:])
        if shape != bundle.input_shape:
            raise TskdError(
                f"{path}: expected images of {bundle.input_shape} as inference.json has them, found {shape}. Make it "
                f"again: {make} --overwrite"
            )
        self.pipeline = NumpyPipeline(bundle, self._run, batch_size)

    def mask(self, array: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
        """Return class indices of a volume [X, Y, Z] with affine, or of a picture [rows, columns(, 3)] without one."""
        return self.pipeline.picture(array) if affine is None else self.pipeline.volume(array, affine)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self.session.run(["pred"], {"image": batch})[0]


def _session(onnxruntime: Any, path: Path, device: str, remedy: str) -> Any:
    """Return a session of ONNX Runtime on a device, with as many threads as OpenMP may use."""
    name, _, number = device.partition(":")
    if name not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise TskdError(f"--device: expected cpu, cuda or cuda:N for ONNX Runtime, found {device!r}.")
    if name == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise TskdError(f"--device {device}: expected ONNX Runtime with CUDA, found none. pip install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = openmp_threads() or 0  # 0 is its own choice
    cuda = [("CUDAExecutionProvider", {"device_id": int(number or 0)})] if name == "cuda" else []
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[*cuda, "CPUExecutionProvider"])
    except Exception as error:  # its classes have no name of their own
        raise TskdError(f"{path}: expected a network as ONNX, found a damaged file ({error}). {remedy}") from error
