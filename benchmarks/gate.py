"""How long the memorisation gate takes, on virtual patients: nothing to download, no GPU needed.

    python benchmarks/gate.py --synthetic 5000 --training 1000 --size 256

The training images are slices of virtual patients, the images to judge are slices of other ones, so the share that is
flagged is the gate's false alarms (these are drawn small and enlarged, which is quicker). Everything that a run of the
bundle does is timed: reading, thresholds, the control group, the altered copies, the written report. Printed as one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from tskd.cpus import cpus
from tskd.data.phantom.cohort import prepare_phantom, virtual_patient
from tskd.synthesis import RandomFeatures, SyntheticFolder, gate, teacher_features

SLICES = 20  # a patient
SMALL = 64  # side of the images to judge before they are enlarged
HELD_OUT = 2  # patients of the validation list, and as many of the test list, which the gate does not read


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the images in a temporary folder, judge them and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic", type=int, default=5000, help=f"images to judge, a multiple of {SLICES}")
    parser.add_argument("--training", type=int, default=1000, help=f"training images, a multiple of {SLICES}")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--features", default="none", help="none, random, or a foundation model (mobile_sam, ...)")
    parser.add_argument("--weights", help="weights of that foundation model")
    parser.add_argument("--feature-size", type=int, default=128, help="side of the images that it sees")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        patients = options.training // SLICES + 2 * HELD_OUT
        dataset_file = prepare_phantom(Path(folder, "real"), patients, 0, options.size, SLICES, HELD_OUT, HELD_OUT)
        synthetic = _other_patients(Path(folder, "synthetic"), options.synthetic, options.size)
        start, start_cpu = time.perf_counter(), time.process_time()
        features = _features(options.features, options.weights, options.feature_size, options.device)
        report = gate(synthetic, dataset_file, features=features, device=options.device)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    result = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "threads": torch.get_num_threads(),
        "cores": cpus(),
        **{key: report[key] for key in ("training_images", "training_groups", "synthetic", "held_out", "features")},
    }
    print(json.dumps(result))


def _other_patients(folder: Path, count: int, size: int) -> Path:
    images = SyntheticFolder(folder, count, {"made of": "slices of virtual patients"})
    for patient in range(count // SLICES):
        volume = virtual_patient(1, patient, SMALL, SLICES)[0].astype(np.float32)
        low, high = np.percentile(volume, [0.5, 99.5])
        slices = torch.from_numpy((volume - low) / (high - low)).clamp(0, 1).permute(2, 0, 1)[:, None]
        slices = functional.interpolate(slices, (size, size), mode="bilinear", align_corners=False)
        images.write(range(patient * SLICES, (patient + 1) * SLICES), slices)
    return folder


def _features(name: str, weights: str | None, size: int, device: str) -> torch.nn.Module | None:
    if name == "none":
        return None
    return (RandomFeatures() if name == "random" else teacher_features(name, weights, size)).to(device)


if __name__ == "__main__":
    main()
