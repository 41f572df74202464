"""Memory an image, and opens of a picture before the first step, of a training or distillation (`--root`: any tree).

    python benchmarks/measure/distillation.py --root . --images 200 --size 256 [--distil]

Writes images of their own and, for a distillation, soft labels (5 x 64 x 64 logits, 256 x 16 x 16 embedding), loads
them as the student's bundle does, and prints one line of JSON: megabytes an image, opens a picture, memory maps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Write the data, load it, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="of the tree whose code is measured")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--latent", type=int, default=16, help="side of the embedding; the logits have four times it")
    parser.add_argument("--distil", action="store_true")
    options = parser.parse_args()
    old = (options.root / "common/__init__.py").is_file()
    sys.path.insert(0, str(options.root if old else options.root / "common"))
    sys.argv = sys.argv[:1]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = write_images(folder, options.images, options.size)
        write_dataset(import_module("common.data.datalist" if old else "tskd.data.datalist"), folder, entries)
        if options.distil:
            write_soft_labels(folder, entries, options.latent)
        print(json.dumps(measure(options.root, folder, options.size, options.distil, old)))


def write_images(folder: Path, number: int, size: int) -> list[dict[str, str]]:
    """Write pictures of noise with labels; return their entries."""
    from PIL import Image

    (folder / "slices").mkdir()
    label = Image.fromarray(np.random.default_rng(0).integers(0, 5, (size, size), np.uint8).repeat(1, 0))
    entries = []
    for k in range(number):
        if k % 10_000 == 0:  # a file system limits the links to a file
            shared = folder / f"label{k}.png"
            label.save(shared)
        small = np.random.default_rng(k).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(small).resize((size, size)).save(folder / f"slices/{k}.png")
        os.link(shared, folder / f"slices/{k}_label.png")
        names = {"image": f"slices/{k}.png", "label": f"slices/{k}_label.png"}
        entries.append({**names, "group": f"p{k}", "case": f"p{k}"})
    return entries


def write_dataset(datalist: Any, folder: Path, entries: list[dict[str, str]]) -> None:
    """Write dataset.json: the last image to validate and test, all others to train on."""
    names = {"0": "background", "1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"}
    lists = {"training": entries[:-2], "unlabelled": [], "validation": entries[-2:-1], "test": entries[-1:]}
    header = {"name": "bench", "modality": "MR", "channels": 1, "labels": names, "provenance": {}}
    datalist.write(folder / "dataset.json", {**header, **lists, "intensity": {"percentiles": [0.5, 99.5]}})


def write_soft_labels(folder: Path, entries: list[dict[str, str]], latent: int) -> None:
    """Write soft labels as a teacher would."""
    import torch
    from safetensors.torch import save_file

    (folder / "soft_labels").mkdir()
    cases = {}
    arrays = {
        "logits": torch.randn(5, 4 * latent, 4 * latent).half(),
        "embedding": torch.randn(256, latent, latent).half(),
    }
    for entry in entries:
        save_file(arrays, folder / "soft_labels" / f"{entry['case']}.safetensors")
        cases[entry["case"]] = {"image": hashlib.sha256((folder / entry["image"]).read_bytes()).hexdigest()}
    header = {"teacher": "0", "preprocessing": {"in_channels": 1, "image_size": 256}, "cases": cases}
    (folder / "soft_labels/manifest.json").write_text(json.dumps(header))


def measure(root: Path, folder: Path, size: int, distil: bool, old: bool) -> dict[str, float]:
    """Return megabytes an image, opens of a picture before the first step, and memory maps of files in the folder."""
    from monai.bundle import ConfigParser

    opens = {"pictures": 0}

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event == "open"
            and isinstance(arguments[0], str)
            and arguments[0].endswith(".png")
            and "_label" not in arguments[0]
        ):
            opens["pictures"] += arguments[0].startswith(str(folder))

    bundle = root / "bundles/student_segmentation"
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / name) for name in ("train.json", *(["distill.json"] * distil))])
    parser.update(
        {"bundle_root": str(bundle), "dataset_dir": str(folder), "image_size": size, "output_dir": str(folder)}
    )
    if distil:
        parser["soft_labels"] = str(folder / "soft_labels")
    data = import_module("common.data" if old else "tskd.data")
    before_imports = resident()
    parser.get_parsed_content("loss")
    sys.addaudithook(count)
    data.check_for_training(str(folder / "dataset.json"), 5, 1)
    before = max(resident(), before_imports)
    dataset = parser.get_parsed_content("train#dataset")
    taken = resident() - before
    for key in ("fingerprints",) if not old else ():
        parser.get_parsed_content(key)
    if old:
        for key in parser["train#named_handlers#checkpoint#identity"]:
            parser.get_parsed_content(f"train#named_handlers#checkpoint#identity#{key}")
    maps = sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())
    return {
        "MB": round(taken / len(dataset) / 1e6, 3),
        "opens": round(opens["pictures"] / len(dataset), 2),
        "maps": maps,
        "images": len(dataset),
    }


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
