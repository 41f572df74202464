r"""What the exports of a shipped bundle cost and lose, on the test patients of its data set, as a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/exported.py liver_segmentation --dataset-file data/dataset.json

CPU time of one slice: the median of `--rounds`, the formats in turn. Dice: of NumPy's preprocessing with each network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every format that lies in the bundle's models/ and print its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--dataset-file", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(arguments)
    from tskd.predict.shipped_bundle import read_bundle

    bundle = read_bundle(options.bundle)
    networks = formats(bundle.root)
    image = np.random.default_rng(0).random((1, bundle.channels, bundle.image_size, bundle.image_size), np.float32)
    one, eight = (cpu_ms(networks, np.repeat(image, count, axis=0), options.rounds) for count in (1, 8))
    dice = {name: mean_dice(network, bundle, options.dataset_file) for name, network in networks.items()}
    organs = list(bundle.structures.values())
    columns = ("format", "ms a slice", "ms of 8", "times as fast", "Dice", *organs, "lost, mean", "lost, worst organ")
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for name in networks:
        lost = [dice["PyTorch"][organ] - dice[name][organ] for organ in organs]
        numbers = [f"{one[name]:.1f}", f"{eight[name]:.0f}", f"{one['PyTorch'] / one[name]:.1f}"]
        numbers += [f"{value:.4f}" for value in (np.mean(list(dice[name].values())), *dice[name].values())]
        print("| " + " | ".join([name, *numbers, f"{np.mean(lost):.4f}", f"{max(lost):.4f}"]) + " |")


def formats(root: Path) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the networks of a bundle as functions of a batch, PyTorch's first."""
    import torch

    from tskd.export.exporter import NETWORKS, pytorch_network
    from tskd.export.network_files import run_openvino
    from tskd.export.verify_export import run_torch
    from tskd.predict.onnx_backend import FILES, OnnxBackend
    from tskd.predict.shipped_bundle import read_bundle

    bundle = read_bundle(root)
    networks = {"PyTorch": run_torch(pytorch_network(bundle))}
    for kind, file in NETWORKS.items():
        path = root / "models" / file
        if not path.exists():
            continue
        if kind in FILES:
            networks[kind] = OnnxBackend(bundle, kind).pipeline.network
        else:
            networks[kind] = run_openvino(path) if kind == "openvino" else run_torch(torch.jit.load(str(path)))
    return networks


def cpu_ms(networks: dict[str, Callable[[np.ndarray], np.ndarray]], batch: np.ndarray, rounds: int) -> dict[str, float]:
    """Return the median CPU time of a batch by each network, in turn."""
    spent: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds + 2):  # the first two warm up
        for name, network in networks.items():
            began = time.process_time()
            network(batch)
            spent[name].append(time.process_time() - began)
    return {name: 1000 * float(np.median(seconds[2:])) for name, seconds in spent.items()}


def mean_dice(network: Callable[[np.ndarray], np.ndarray], bundle: object, dataset_file: Path) -> dict[str, float]:
    """Return the mean Dice of each structure over the volumes of the test list."""
    from tskd.data.datalist import entries
    from tskd.data.io.nifti import load_label
    from tskd.export.verify_export import _dice
    from tskd.predict.find_cases import Case
    from tskd.predict.numpy_pipeline import NumpyPipeline
    from tskd.predict.read_case import read_case
    from tskd.predict.shipped_bundle import ShippedBundle

    assert isinstance(bundle, ShippedBundle)
    scores: dict[str, list[float]] = {organ: [] for organ in bundle.structures.values()}
    for entry in entries(dataset_file, "test"):
        image = read_case(Case((Path(entry["image"]),), "nifti", entry["image"], entry["group"]), bundle)
        assert image.affine is not None
        mask = NumpyPipeline(bundle, network, batch_size=1).volume(image.array, image.affine)
        label = load_label(Path(entry["label"]), mask.shape, image.affine)
        known = label != 255
        for index, organ in bundle.structures.items():
            scores[organ].append(_dice((mask == index)[known], label[known] == index))
    return {organ: float(np.mean(values)) for organ, values in scores.items()}


if __name__ == "__main__":
    main()
