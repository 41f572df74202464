"""Write a shipped bundle's network as TorchScript, ONNX, ONNX of 8 bits, or OpenVINO.

Each file names its tensors `image` (float32 [B, channels, size, size], scaled to [0, 1]) and `pred` (logits
[B, classes, size, size]), takes any batch, and says in its metadata what it was made of. Neighbouring slices are
further channels, and a 3-D network takes patches [B, channels, x, y, z].
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tskd import __version__
from tskd.errors import TskdError
from tskd.files import atomic, sha256
from tskd.predict.shipped_bundle import ShippedBundle

OPSET = 17


def file_metadata(bundle: ShippedBundle) -> dict[str, str]:
    """Return the metadata of an exported file, each value a text: labels, size, scaling, sha256 of model.pt."""
    scaling = [step for step in bundle.transforms("preprocessing") if "Scale" in step["_target_"]]
    return {
        "name": bundle.name,
        "version": bundle.version,
        "labels": json.dumps({str(index): name for index, name in bundle.labels.items()}),
        "image_size": str(bundle.image_size),
        "channels": str(bundle.input_shape[0]),
        **({"neighbour_slices": str(bundle.neighbours)} if bundle.neighbours else {}),
        **({"patch_size": json.dumps(bundle.patch_size)} if bundle.patch_size else {}),
        "scaling": json.dumps(scaling or [bundle.resolve("@scale_intensity")], default=str),
        "model_sha256": sha256(bundle.model),
        "producer": f"tskd {__version__}",
    }


def write_torchscript(network: nn.Module, bundle: ShippedBundle, path: Path) -> None:
    """Trace the network; inference.json and metadata.json are extra files in it, as in MONAI's own export."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), _example(bundle))
    extra = {
        f"{name}.json": (bundle.root / "configs" / f"{name}.json").read_text() for name in ("inference", "metadata")
    }
    extra["tskd.json"] = json.dumps(file_metadata(bundle))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".draft-") as folder:
        draft = (
            Path(folder) / path.name
        )  # the archive's inner folder has this name; MONAI Deploy looks for its own there
        torch.jit.save(traced, str(draft), _extra_files=extra)
        os.replace(draft, path)


def write_onnx(network: nn.Module, bundle: ShippedBundle, path: Path) -> None:
    """Write ONNX with float32 weights.

    Raises:
        TskdError: the package onnx is not installed, or the network has an operation that ONNX lacks.
    """
    onnx = _package("onnx")
    with atomic(path) as draft, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                network.eval(),
                (_example(bundle),),
                str(draft),
                input_names=["image"],
                output_names=["pred"],
                dynamic_axes={"image": {0: "batch"}, "pred": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise TskdError(
                f"{bundle.root}: cannot be written as ONNX, {error}. Export TorchScript instead."
            ) from error
        _add_metadata(onnx, draft, file_metadata(bundle))


def write_int8(source: Path, calibration: Iterable[np.ndarray], path: Path) -> None:
    """Quantise an ONNX file to 8 bits: static, QDQ, weights per channel.

    Args:
        source: ONNX file with float32 weights.
        calibration: images float32 [1, channels, size, size] as the network sees them, from which the ranges of the
            activations are taken.
        path: new file, with the metadata of `source`.
    """
    onnx = _package("onnx")
    _package("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """One image after the other."""

        def __init__(self) -> None:
            self.images = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image}

    metadata = {item.key: item.value for item in onnx.load(str(source)).metadata_props}
    prepared = path.with_name(f".prepared-{path.name}")
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        with atomic(path) as draft:
            quantize_static(
                str(prepared),
                str(draft),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            _add_metadata(onnx, draft, {**metadata, "precision": "int8 (static, QDQ, per channel)"})
    finally:
        prepared.unlink(missing_ok=True)


def write_openvino(source: Path, path: Path) -> None:
    """Write OpenVINO's .xml and .bin from an ONNX file, float32; its metadata go along as runtime information."""
    onnx, openvino = _package("onnx"), _package("openvino")
    model = openvino.convert_model(str(source))
    for item in onnx.load(str(source)).metadata_props:
        model.set_rt_info(item.value, ["tskd", item.key])
    path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, str(path), compress_to_fp16=False)


def run_openvino(path: Path) -> Any:
    """Return an OpenVINO file as a function from a batch to logits, computed in float32 as it is written."""
    openvino = _package("openvino")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled([batch])[0]


def _add_metadata(onnx: Any, path: Path, content: Mapping[str, str]) -> None:
    model = onnx.load(str(path))
    del model.metadata_props[:]
    for key, value in content.items():
        item = model.metadata_props.add()
        item.key, item.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _example(bundle: ShippedBundle) -> torch.Tensor:
    return torch.rand((2, *bundle.input_shape), generator=torch.Generator().manual_seed(0))


def _package(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise TskdError(
            f"expected the package {name} for this format, found it not installed. pip install {name}"
        ) from error
