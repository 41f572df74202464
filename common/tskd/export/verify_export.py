"""Verify that an exported network gives the masks of the PyTorch one, on real images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tskd.data.datalist import entries
from tskd.errors import TskdError
from tskd.predict.find_cases import Case
from tskd.predict.numpy_pipeline import Network, NumpyPipeline
from tskd.predict.read_case import read_case
from tskd.predict.shipped_bundle import ShippedBundle

TOLERANCE = {"torchscript": 0.001, "onnx": 0.001, "openvino": 0.001, "onnx-int8": 0.01}  # Dice of the worst organ


@dataclass
class ExportComparison:
    """Comparison of an exported network with the PyTorch one.

    Args:
        difference: largest one between the logits of a slice.
        rows: patient, organ, and how far the mask agrees with PyTorch's (Dice); `lost`, the Dice with the label that
            is lost, where there is a label.
        milliseconds: a slice, or patch of a 3-D network, by the exported network and by PyTorch, alternately in one
            run.
    """

    difference: float
    rows: list[dict[str, Any]]
    milliseconds: tuple[float, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The organ that loses most, averaged over patients, and how much it loses."""
        organs = {row["organ"] for row in self.rows}
        key = "lost" if all("lost" in row for row in self.rows) else "disagreement"
        mean = {o: float(np.mean([row[key] for row in self.rows if row["organ"] == o])) for o in sorted(organs)}
        return max(mean.items(), key=lambda item: item[1], default=("-", 0.0))


def verify(
    bundle: ShippedBundle,
    network: torch.nn.Module,
    exported: Network,
    dataset_file: str | Path,
    limit: int | None = None,
) -> ExportComparison:
    """Compare masks and logits on the validation list (on the test list where there is none).

    Args:
        bundle: the shipped bundle.
        network: its PyTorch network with its weights.
        exported: function from a batch to logits.
        dataset_file: the training's dataset.json.
        limit: images that are compared, spread over the list; None for all.

    Raises:
        TskdError: no image to compare on.
    """
    differences: list[float] = []
    clock = np.zeros((2, 2))  # exported, PyTorch: seconds, slices

    def run_both(batch: np.ndarray) -> np.ndarray:
        first, second = (_timed(run, batch, clock[row]) for row, run in enumerate((exported, run_torch(network))))
        differences.append(float(np.abs(first - second).max()))
        return np.concatenate([first, second])

    rows = []
    for case, label_file in _cases(dataset_file, limit):
        loaded = read_case(case, bundle)
        masks = _both_masks(bundle, run_both, loaded.array, loaded.affine)
        label = None if label_file is None else _label(label_file, loaded.affine, masks[0].shape)
        rows += _compare(case.stem, masks, label, bundle)
    if not rows:
        raise TskdError(f"{dataset_file}: expected validation or test images to verify on, found none.")
    seconds = clock[:, 0] / clock[:, 1] * 1000
    return ExportComparison(max(differences), rows, (float(seconds[0]), float(seconds[1])))


def check(comparison: ExportComparison, kind: str, tolerance: float | None = None) -> None:
    """Refuse an exported network that loses more than the tolerance in its worst organ.

    Raises:
        TskdError: with the organ and what it loses.
    """
    organ, loss = comparison.worst
    allowed = TOLERANCE[kind] if tolerance is None else tolerance
    if loss > allowed:
        raise TskdError(
            f"--to {kind}: expected no organ to lose more than {allowed:g} Dice against PyTorch, found {organ} to lose "
            f"{loss:.4f}. Use another format, or allow more: --tolerance {loss * 1.1:.2g}"
        )


def calibration_images(bundle: ShippedBundle, dataset_file: str | Path, count: int = 64) -> Iterator[np.ndarray]:
    """Yield images of the training list as the network sees them, spread over the list; never of validation or test."""
    pipeline = NumpyPipeline(bundle, lambda batch: batch)
    training = entries(dataset_file, "transfer")
    chosen: list[dict[Any, Any]] = list(training)
    if bundle.neighbours:
        from tskd.data.neighbour_slices import NeighbourSlicesd

        chosen = list(map(NeighbourSlicesd([dataset_file], bundle.neighbours), chosen))
    for k in np.linspace(0, len(chosen) - 1, min(count, len(chosen))):
        entry = chosen[int(k)]
        files = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
        pixels = np.dstack([np.asarray(Image.open(file), np.float32) for file in files]) / 255
        wide, high = pixels.shape[1], pixels.shape[0]
        small = pipeline.downsample(wide, bundle.image_size) @ pixels.transpose(2, 1, 0)
        yield np.ascontiguousarray((small @ pipeline.downsample(high, bundle.image_size).T)[None], np.float32)


def run_torch(network: torch.nn.Module) -> Network:
    """Wrap a PyTorch network as a function of arrays."""

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(batch)).numpy()

    return run


def _timed(run: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, clock: np.ndarray) -> np.ndarray:
    started = time.perf_counter()
    logits = run(batch)
    clock += time.perf_counter() - started, len(batch)
    return logits


def _both_masks(
    bundle: ShippedBundle, run_both: Network, array: np.ndarray, affine: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the exported and of the PyTorch network, whose logits `run_both` gives one after the other."""
    reference_logits: list[np.ndarray] = []

    def first(batch: np.ndarray) -> np.ndarray:
        logits = run_both(batch)
        reference_logits.append(logits[len(batch) :])
        return logits[: len(batch)]

    def run(network: Network) -> np.ndarray:
        pipeline = NumpyPipeline(bundle, network, batch_size=1)
        return pipeline.picture(array) if affine is None else pipeline.volume(array, affine)

    exported = run(first)
    replay = iter(reference_logits)
    return exported, run(lambda batch: next(replay))


def _cases(dataset_file: str | Path, limit: int | None) -> Iterator[tuple[Case, Path | None]]:
    from tskd.data.datalist import read

    dataset = read(dataset_file)
    section = "validation" if dataset["validation"] else "test"
    listed: list[dict[Any, Any]] = list(entries(dataset_file, section)) if dataset[section] else []
    count = len(listed) if limit is None else min(limit, len(listed))
    for entry in (listed[int(k)] for k in np.linspace(0, len(listed) - 1, count)):
        path = Path(entry["image"])
        kind = "nifti" if path.name.endswith((".nii", ".nii.gz")) else "picture"
        label = Path(entry["label"]) if "label" in entry else None
        yield Case((path,), kind, str(path), entry.get("group", path.stem)), label


def _label(path: Path, affine: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    from tskd.data.io.nifti import load_label

    return np.asarray(Image.open(path)) if affine is None else load_label(path, shape, affine)


def _compare(
    patient: str, masks: tuple[np.ndarray, np.ndarray], label: np.ndarray | None, bundle: ShippedBundle
) -> list[dict[str, Any]]:
    rows = []
    for index, organ in bundle.structures.items():
        exported, reference = (mask == index for mask in masks)
        row = {"patient": patient, "organ": organ, "disagreement": 1 - _dice(exported, reference)}
        if label is not None:
            known = label != 255
            truth = label[known] == index
            row["lost"] = _dice(reference[known], truth) - _dice(exported[known], truth)
        rows.append(row)
    return rows


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0
