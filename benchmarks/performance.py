"""The table of docs/performance.md: this tree against an older one, in turn, in CPU seconds of one thread.

    make bench                                                      # against the commit that TODAY names
    python benchmarks/performance.py --today ../older --rows training --output docs/results/performance.csv

Each row runs a script of benchmarks/measure twice, in the older tree and in this one. The data are virtual patients and
pictures of noise. Rows that are not run keep their lines in the CSV.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("benchmark", "today", "new", "ratio", "machine")
SHORT = ["max_epochs=2", "iterations_per_epoch=12", "val_interval=9", "batch_norm_batches=0"]
Row = tuple[
    str, str, str, list[str], list[str]
]  # name, script, key of its output, arguments in the older tree, in this


def rows(dataset: Path, output: Path, pictures: Path) -> list[Row]:
    """Return the rows of the table."""
    run = [f"dataset_file={dataset}", f"output_dir={output}", f"model_dir={output}/m", "resume=never", *SHORT]
    new_run = [part.replace(str(output), f"{output}_new") for part in run]  # a run of other code is not continued
    lite = [*new_run, "encoder_weights=random"]
    former, present = ["--configs", "flexible_unet.json", "--"], ["--configs", "lite_unet.json", "--"]
    folders = ["--images", str(pictures / "i"), "--masks", str(pictures / "m")]
    table: list[Row] = []
    for size in ("128", "256"):
        side = f"image_size={size}"
        for title, extra in (("float32", []), ("bfloat16", ["amp_dtype=bfloat16"])):
            name = f"training at {size} px, ms an image: FlexibleUNet, then LiteUNet in {title}"
            table.append((name, "training", "ms", [*former, *run, side], [*present, *lite, side, *extra]))
        name = f"training at {size} px, share outside the network"
        table.append((name, "training", "outside", [*former, *run, side], [*present, *lite, side]))
    name = "start of a training, s to the first step"
    table.append((name, "training", "start", [*former, *run, "image_size=128"], [*present, *lite, "image_size=128"]))
    soft = dataset.parent / "soft"
    stored = [
        f"dataset_file={soft}/dataset.json",
        f"soft_labels={soft}/soft_labels",
        "image_size=128",
        "iterations_per_epoch=3",
    ]
    for title, vfm in (("MobileSAM", "mobile_sam"), ("SAM ViT-B", "sam_vit_b")):
        name = f"distillation at 128 px with {title} live at 512 px, over stored soft labels"
        asked = ["--live-teacher", vfm, "--configs", "distill.json"]
        table.append(
            (
                name,
                "training",
                "live",
                [*asked, "flexible_unet.json", "--", *run, *stored],
                [*asked, "lite_unet.json", "--", *lite, *stored],
            )
        )
    for title, extra in (("float32", []), ("bfloat16", ["--amp-dtype", "bfloat16"])):
        name = f"writing soft labels at 256 px, s an image: MobileSAM in float32, then in {title}"
        table.append((name, "soft_labels", "s", ["--images", "24"], ["--images", "24", *extra]))
    for name, images, extra in (
        ("training", 400, []),
        ("training", 6000, []),
        ("distillation", 400, ["--distil"]),
    ):
        options = ["--images", str(images), *extra]
        name = f"memory of a {name} at 256 px, MB an image of {images:,}"
        table.append((name, "distillation", "MB", options, options))
    options = ["--images", "400", "--distil"]
    table.append(("opens of a picture before a distillation", "distillation", "opens", options, options))
    table.append(("memory maps, 398 soft labels", "distillation", "maps", options, options))
    for name, key in (("prepare", "prepare"), ("check", "check"), ("prepare and check", "both")):
        table.append((f"{name}, s for 1,000 pictures", "preparation", key, folders, folders))
    table.append(("prepare and check, s on the clock for 1,000 pictures", "preparation", "both_wall", folders, folders))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rows and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--today", type=Path, required=True, help="the older tree, such as a git worktree")
    parser.add_argument("--rows", default="", help="only rows with this word in their name")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results/performance.csv")
    parser.add_argument("--machine", help="in words; by default its processor")
    options = parser.parse_args(arguments)
    machine = options.machine or f"{import_module('tskd.machine_file').processor_name().rpartition(',')[0]}, one thread"
    table = {row["benchmark"]: row for row in _read(options.output)}
    measured: dict[str, dict[str, float]] = {}  # a script's output serves all rows with its arguments
    with tempfile.TemporaryDirectory() as folder:
        dataset = _write_data(Path(folder))
        for name, script, key, *both in rows(dataset, Path(folder, "run"), Path(folder, "pictures")):
            if options.rows not in name:
                continue
            values = []
            for root, extra in zip((options.today, ROOT), both, strict=True):
                command = [sys.executable, "-W", "ignore", str(ROOT / f"benchmarks/measure/{script}.py"), "--root"]
                command += [str(root.resolve()), *extra]
                if str(command) not in measured:
                    measured[str(command)] = _run(command)
                values.append(measured[str(command)][key])
            ratio = f"{values[1] / values[0]:.2f}" if values[0] else ""
            line = dict(zip(COLUMNS, (name, f"{values[0]:g}", f"{values[1]:g}", ratio, machine), strict=True))
            table[name] = line
            print("| " + " | ".join(line.values()) + " |", flush=True)
            with options.output.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(table.values())


def _run(command: list[str]) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_data(folder: Path) -> Path:
    """Write a data set of virtual patients at 256 px, and 500 pictures in colour with black and white masks."""
    import numpy as np
    from PIL import Image

    from tskd.data import datalist
    from tskd.data.phantom.cohort import prepare_phantom

    for name in "im":
        Path(folder, "pictures", name).mkdir(parents=True)
    for k in range(500):
        small = np.random.default_rng(k).integers(0, 256, (24, 24, 3), np.uint8)
        picture = Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)
        picture.save(folder / f"pictures/i/{k}.jpg", quality=90)
        picture.convert("L").point(lambda grey: 255 * (grey > 150)).convert("1").save(folder / f"pictures/m/{k}.png")
    dataset = prepare_phantom(folder / "phantom", 12, 0, 256, 12, 1, 1)
    soft = dataset.parent / "soft"
    soft.mkdir()
    made = import_module("measure.distillation")  # beside this script
    entries = made.write_images(soft, 50, 256)
    made.write_dataset(datalist, soft, entries)
    made.write_soft_labels(soft, entries, 16)
    return dataset


if __name__ == "__main__":
    main()
