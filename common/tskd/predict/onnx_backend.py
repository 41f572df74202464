"""Predict masks with ONNX Runtime: starts in a second, needs neither torch nor MONAI."""

from __future__ import annotations

import os

import numpy as np

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
        TskdError: no such file, one of other weights than model.pt or for other images, ONNX Runtime is not installed,
            or inference.json holds what MONAI alone can run.
    """

    def __init__(self, bundle: ShippedBundle, kind: str = "onnx", device: str = "cpu", batch_size: int = 8) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise TskdError(
                "--backend onnx: expected ONNX Runtime, found it not installed. pip install onnxruntime"
            ) from error
        path = bundle.root / "models" / FILES[kind]
        if not path.is_file():
            raise TskdError(
                f"{path}: expected the network as ONNX, found no such file. Make it: "
                f"tskd export {bundle.root} --to {kind}"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads := os.environ.get("OMP_NUM_THREADS", ""):
            options.intra_op_num_threads = int(threads)
        providers = (["CUDAExecutionProvider"] if device.startswith("cuda") else []) + ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        expected = self.session.get_modelmeta().custom_metadata_map.get("model_sha256")
        if bundle.model.is_file() and expected not in (None, sha256(bundle.model)):
            raise TskdError(
                f"{path}: expected the weights of {bundle.model.name}, found it made of other ones. Make it again: "
                f"tskd export {bundle.root} --to {kind} --overwrite"
            )
        shape = tuple(self.session.get_inputs()[0].shape[1:])
        if shape != bundle.input_shape:
            raise TskdError(
                f"{path}: expected images of {bundle.input_shape} as inference.json has them, found {shape}. Make it "
                f"again: tskd export {bundle.root} --to {kind} --overwrite"
            )
        self.pipeline = NumpyPipeline(bundle, self._run, batch_size)

    def mask(self, array: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
        """Return class indices of a volume [X, Y, Z] with affine, or of a picture [rows, columns(, 3)] without one."""
        return self.pipeline.picture(array) if affine is None else self.pipeline.volume(array, affine)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self.session.run(["pred"], {"image": batch})[0]
