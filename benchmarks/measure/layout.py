"""CPU time of a shipped bundle's network in the layout of its inference.json, as a share of that in contiguous memory.

    OMP_NUM_THREADS=1 python benchmarks/measure/layout.py liver_segmentation

The two in turn, medians of `--rounds`, on batches of 1 and 8 random images. Prints one line of JSON a batch.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Measure, and print a line a batch."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    import torch

    from tskd.export.exporter import pytorch_network
    from tskd.export.verify_export import run_torch
    from tskd.networks import on_device
    from tskd.predict.shipped_bundle import read_bundle

    torch.set_num_threads(1)
    bundle = read_bundle(options.bundle)
    network = pytorch_network(bundle)
    contiguous = on_device(copy.deepcopy(network), "cpu", "contiguous_format")
    networks = {"contiguous": run_torch(contiguous), "shipped": run_torch(network)}
    for count in (1, 8):
        batch = np.random.default_rng(0).random((count, *bundle.input_shape), np.float32)
        spent: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(options.rounds + 2):  # the first two warm up
            for name, run in networks.items():
                began = time.process_time()
                run(batch)
                spent[name].append(time.process_time() - began)
        ms = {name: 1000 * float(np.median(seconds[2:])) for name, seconds in spent.items()}
        ratio = float(np.median(np.divide(spent["shipped"], spent["contiguous"])[2:]))
        first, second = (run(batch) for run in networks.values())
        difference = float(np.abs(first - second).max())
        print(json.dumps({"batch": count, "ms": ms, "ratio": ratio, "largest difference of logits": difference}))


if __name__ == "__main__":
    main()
