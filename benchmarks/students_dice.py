r"""Dice of every shipped student by backend, after a short training on virtual patients, as a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/students_dice.py --steps 200 --students lite_unet flexible_unet train

Each network starts from random weights and learns from all labels of the built-in data, the same number of steps for
each: this says what an export costs in Dice, and ranks nobody. Means of four patients of the test list.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
STUDENTS = ("lite_unet", "flexible_unet", "train", "segresnet", "basic_unet", "swin_unetr")
BACKENDS = ("torch", "onnx", "onnx-int8")
BATCH = 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, ship and export every student, and print its row."""
    from tskd.data.phantom.cohort import prepare_phantom

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=STUDENTS, help="configs of the student's bundle")
    parser.add_argument("--size", type=int, default=64, help="pixels along a side of the network's image")
    parser.add_argument("--steps", type=int, default=200, help=f"optimiser steps of {BATCH} slices")
    options = parser.parse_args(arguments)
    columns = ("student", *BACKENDS, "most lost by int8 in an organ")
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare_phantom(Path(folder) / "data", 16, image_size=options.size, num_validation=0, num_test=4)
        for student in options.students:
            bundle = _ship(student, data, Path(folder) / student / "bench_segmentation", options.size, options.steps)
            scores = {backend: _dice(bundle, backend, data) for backend in BACKENDS}
            lost = max(a - b for a, b in zip(scores["torch"], scores["onnx-int8"], strict=True))
            numbers = [f"{np.mean(scores[backend]):.4f}" for backend in BACKENDS]
            print("| " + " | ".join([student, *numbers, f"{lost:.4f}"]) + " |", flush=True)


def _dice(bundle: Path, backend: str, data: Path) -> list[float]:
    """Return the Dice of each organ, averaged over the patients of the test list."""
    from tskd.data.datalist import entries
    from tskd.data.io.nifti import load_label, load_volume
    from tskd.predict.choose_backend import load_backend
    from tskd.predict.shipped_bundle import read_bundle

    shipped = read_bundle(bundle)
    model, scores = load_backend(shipped, backend, "cpu", BATCH), []
    for entry in entries(data, "test"):
        image, affine = load_volume(entry["image"])
        mask, label = model.mask(image, affine), load_label(Path(entry["label"]), image.shape, affine)
        pairs = [(mask == index, label == index) for index in shipped.structures]
        scores.append([2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in pairs])
    return [float(value) for value in np.mean(scores, axis=0)]


def _ship(student: str, data: Path, output: Path, size: int, steps: int) -> Path:
    """Train a student, ship it and export it, whatever int8 loses."""
    import torch
    from monai.bundle import ConfigParser

    from tskd.export.exporter import export_network
    from tskd.export.ship import ship_student
    from tskd.networks import batch_norm_momentum

    bundle = ROOT / "bundles" / "student_segmentation"
    parser = ConfigParser()
    names = ["train.json", *([f"{student}.json"] if student != "train" else [])]
    parser.read_config([str(bundle / "configs" / name) for name in names])
    parser.update({"image_size": size, "num_classes": 5})
    torch.manual_seed(0)
    network = batch_norm_momentum(parser.get_parsed_content("network_def"), 0.1)
    _train(network, data, size, steps)
    output.parent.mkdir(parents=True)
    torch.save(network.state_dict(), output.parent / "model.pt")
    overlay = names[1] if len(names) > 1 else None
    ship_student(bundle, output.parent / "model.pt", output, data, size, overlay)
    for kind in BACKENDS[1:]:
        export_network(output, kind, data, tolerance=1.0)
        rows = csv.DictReader((output / f"models/exported_{kind}.csv").read_text().splitlines())
        assert all(float(row["lost"]) <= 1 for row in rows)
    return output


def _train(network, data: Path, size: int, steps: int) -> None:  # type: ignore[no-untyped-def]
    """Fit a network to the labels of the training list: Dice and cross-entropy, AdamW, one cycle of the rate."""
    import torch
    from monai.losses import DiceCELoss
    from PIL import Image

    from tskd.data.datalist import entries

    pairs = entries(data, "labelled")
    read = [[np.asarray(Image.open(entry[key])).T for entry in pairs] for key in ("image", "label")]
    images = torch.from_numpy(np.stack(read[0]).astype(np.float32) / 255)[:, None]
    labels = torch.from_numpy(np.stack(read[1]).astype(np.int64))[:, None]
    assert images.shape[2:] == (size, size)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    loss, random = DiceCELoss(to_onehot_y=True, softmax=True, batch=True), np.random.default_rng(0)
    network.train()
    for _ in range(steps):
        chosen = torch.from_numpy(random.integers(0, len(images), BATCH))
        optimizer.zero_grad()
        loss(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    network.eval()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
