r"""Quality against steps of the samplers, for a trained diffusion model, as a Markdown table.

    python benchmarks/samplers.py runs/ddpm/models/pipeline data/dataset.json --images 100 --amp-dtype bfloat16 \
        --vfm mobile_sam --weights mobile_sam.pth

Each row draws the same image numbers with another sampler and compares them with as many training images, spread evenly
over the list, by the features of the foundation model's image encoder (not Inception's). Seconds are processor time of
drawing alone; on a GPU, time by the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from tskd.data import entries
from tskd.synthesis import (
    RandomFeatures,
    SeededSampler,
    compare,
    load_images,
    load_network,
    load_scheduler,
    teacher_features,
)

ROWS = ("dpmsolver++:10", "dpmsolver++:20", "dpmsolver++:25", "sde-dpmsolver++:20", "ddim:25", "ddim:50", "ddpm:100")
COLUMNS = ("kid", "fid", "precision", "recall", "nearest_median")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws and compares, and prints the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", help="models/pipeline of a training")
    parser.add_argument("dataset_file", help="dataset.json that it was trained on")
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="SAMPLER:STEPS")
    parser.add_argument("--images", type=int, default=100, help="images a row; KID of fewer than 100 ranks nothing")
    parser.add_argument("--first", type=int, default=0, help="number of the first image: other numbers, another draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", default="ddim:50", help="row that grey levels are compared with")
    parser.add_argument("--amp-dtype", help="bfloat16 for mixed precision")
    parser.add_argument("--vfm", help="foundation model of the features; without one, random features")
    parser.add_argument("--weights", help="weights of that foundation model")
    parser.add_argument("--feature-size", type=int, default=128, help="side of the images that it sees")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    network = load_network(options.pipeline, options.amp_dtype).to(options.device).eval()
    scheduler = load_scheduler(options.pipeline)
    features = (
        RandomFeatures()
        if options.vfm is None
        else teacher_features(options.vfm, options.weights, options.feature_size)
    )
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    numbers = torch.arange(options.first, options.first + options.images, device=options.device)

    def draw(row: str) -> tuple[torch.Tensor, float]:
        name, steps = row.split(":")
        sampler = SeededSampler(scheduler, name, int(steps), options.seed)
        start = clock()
        images = torch.cat([sampler(part, network).cpu() for part in numbers.split(10)])
        return images, (clock() - start) / len(numbers)

    reference, seconds = draw(options.reference)
    channels, size = reference.shape[1], tuple(reference.shape[2:])
    training = load_images(entries(options.dataset_file, "transfer"), size, channels)[0]
    real = _vectors(features.to(options.device), training, options.device)
    centre, spread = real.mean(0), real.var(0).mean().sqrt()
    real = (real - centre) / spread
    real = real[torch.linspace(0, len(real) - 1, options.images).round().long()]
    print(f"| sampler | steps | s an image | {' | '.join(COLUMNS)} | grey levels from {options.reference} |")
    print("| --- " + "| ---: " * (len(COLUMNS) + 3) + "|")
    for row in options.rows:
        images, time_each = (reference, seconds) if row == options.reference else draw(row)
        distances = compare(real, (_vectors(features, images, options.device) - centre) / spread)
        values = ["" if distances[name] is None else f"{distances[name]:.2f}" for name in COLUMNS]
        greys = 255 * float((images - reference).square().mean().sqrt())
        print(f"| `{row.replace(':', '` | ')} | {time_each:.2f} | {' | '.join(values)} | {greys:.1f} |", flush=True)


def _vectors(features: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, device: str) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([features(part.to(device)).float().cpu() for part in images.split(16)])


if __name__ == "__main__":
    main()
