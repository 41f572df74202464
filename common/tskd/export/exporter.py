"""`tskd export`: write a shipped bundle, or a run that is shipped first, in the format of another program."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tskd.errors import TskdError
from tskd.export import network_files
from tskd.export.readme_section import EXPORTED, replace_section
from tskd.export.verify_export import ExportComparison, calibration_images, check, run_torch, verify
from tskd.files import atomic, sha256, write_text
from tskd.predict.onnx_backend import FILES, OnnxBackend
from tskd.predict.shipped_bundle import ShippedBundle, read_bundle

NETWORKS = {"torchscript": "model.ts", **FILES, "openvino": "model.xml"}  # in models/


def export_network(
    bundle: str | Path,
    kind: str,
    dataset_file: str | Path | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
    limit: int | None = None,
) -> str:
    """Write the network of a shipped bundle in another format into its models/, and verify it.

    With a data set, the masks of its validation list are compared with PyTorch's, organ by organ, and the file is
    removed again where the worst organ loses more than the tolerance; `exported_KIND.csv` beside the file has the
    comparison. Without one, only the logits of random numbers are compared.

    Args:
        bundle: folder that `tskd ship` wrote.
        kind: one of `NETWORKS`.
        dataset_file: the training's dataset.json; needed for onnx-int8, whose ranges are measured on its training list.
        tolerance: Dice that the worst organ may lose; None is 0.001, and 0.01 for onnx-int8.
        overwrite: replace a file that is there.
        limit: images of the validation list that are compared, spread over it; None for all.

    Returns:
        What was written and how it compares.

    Raises:
        TskdError: the file is there, a package is missing, or the network loses too much.
    """
    shipped = replace(read_bundle(bundle), exported={})  # what is written here is named anew
    path = shipped.root / "models" / NETWORKS[kind]
    if path.exists() and not overwrite:
        raise TskdError(f"{path}: expected no such file, found one. Replace it: --overwrite")
    if kind == "onnx-int8" and dataset_file is None:
        raise TskdError("--to onnx-int8: expected --dataset-file, on whose training list the ranges are measured.")
    if kind == "onnx-int8" and shipped.patch_size:
        raise TskdError(f"--to onnx-int8: expected a 2-D network, found a 3-D one in {shipped.root}. Use --to onnx.")
    network = pytorch_network(shipped)
    try:
        exported = _write(shipped, network, kind, path, dataset_file)
        if dataset_file is None:
            said = _check_on_random_input(shipped, network, exported, kind, path)
            _name(shipped.root, path, kind, said)
            return f"{path}: {said}; --dataset-file compares masks"
        comparison = verify(shipped, network, exported, dataset_file, limit)
        check(comparison, kind, tolerance)
    except BaseException:
        for written in {path, path.with_suffix(".bin")} if kind == "openvino" else {path}:
            written.unlink(missing_ok=True)
        raise
    _write_rows(path.with_name(f"exported_{kind}.csv"), comparison)
    organ, loss = comparison.worst
    exported_ms, pytorch_ms = comparison.milliseconds
    images = "" if limit is None else f" on {len({row['patient'] for row in comparison.rows})} validation images"
    said = (
        f"largest difference of logits {comparison.difference:.2g}, worst organ {organ} loses {loss:.4f} Dice{images}; "
        f"{pytorch_ms / exported_ms:.1f} times as fast as PyTorch"
    )
    _name(shipped.root, path, kind, said)
    return (
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {said} ({exported_ms:.1f} ms a "
        f"{'patch' if shipped.patch_size else 'slice'}, PyTorch {pytorch_ms:.1f} ms)"
    )


def _name(root: Path, path: Path, kind: str, said: str) -> None:
    """Name a file in metadata.json and in the README, with how it compares."""
    file = root / "configs" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    exported = metadata.setdefault("exported", {})
    exported[f"models/{path.name}"] = {"format": kind, "sha256": sha256(path), "compared": said}
    write_text(file, json.dumps(metadata, indent=4) + "\n")
    lines = [f"- `{name}` ({entry['format']}): {entry['compared']}." for name, entry in exported.items()]
    body = "The same network, each compared with PyTorch when it was written:\n\n" + "\n".join(lines)
    replace_section(root / "docs" / "README.md", EXPORTED, body)


def pytorch_network(bundle: ShippedBundle) -> torch.nn.Module:
    """Return the bundle's network with its weights, loaded strictly, on the CPU."""
    from tskd.predict.torch_backend import TorchBackend

    return TorchBackend(bundle, "cpu").network


def _write(
    bundle: ShippedBundle, network: torch.nn.Module, kind: str, path: Path, dataset_file: str | Path | None
) -> Any:
    """Write the file; return its network as a function from a batch to logits."""
    if kind == "torchscript":
        network_files.write_torchscript(network, bundle, path)
        return run_torch(torch.jit.load(str(path)))
    if kind == "onnx":
        network_files.write_onnx(network, bundle, path)
        return OnnxBackend(bundle, kind).pipeline.network
    source = path.with_name(f".float-{path.stem}.onnx")
    try:
        network_files.write_onnx(network, bundle, source)
        if kind == "openvino":
            network_files.write_openvino(source, path)
            return network_files.run_openvino(path)
        network_files.write_int8(source, calibration_images(bundle, dataset_file or ""), path)
        return OnnxBackend(bundle, kind).pipeline.network
    finally:
        source.unlink(missing_ok=True)


def _check_on_random_input(
    bundle: ShippedBundle, network: torch.nn.Module, exported: Any, kind: str, path: Path
) -> str:
    image = np.random.default_rng(0).random((3, *bundle.input_shape), np.float32)
    expected = run_torch(network)(image)
    difference = float(np.abs(exported(image) - expected).max())
    allowed = 1e-3 * max(1.0, float(np.abs(expected).max()))
    if difference > allowed:
        raise TskdError(f"--to {kind}: expected the logits of PyTorch within {allowed:.2g}, found {difference:.2g}.")
    return f"largest difference of logits {difference:.2g} on random numbers"


def _write_rows(path: Path, comparison: ExportComparison) -> None:
    with atomic(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(comparison.rows[0]))
        writer.writeheader()
        writer.writerows(comparison.rows)
