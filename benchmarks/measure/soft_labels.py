"""CPU seconds an image of writing soft labels, in this tree or an older one (`--root`).

    OMP_NUM_THREADS=1 python benchmarks/measure/soft_labels.py --root . --images 24 --size 256

Runs the teacher bundle's soft_labels.json on pictures of noise, a fifth of them labelled, with a teacher of random
weights, after a first run on two pictures that is not counted. Prints one line of JSON: `s` an image, and `network`,
the part of the teacher in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    """Write the data and the teacher, run the bundle, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="of the tree whose code is measured")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--vfm", default="mobile_sam")
    parser.add_argument("--amp-dtype", help="bfloat16; single precision without it")
    options = parser.parse_args()
    old = (options.root / "common/__init__.py").is_file()
    sys.path.insert(0, str(options.root if old else options.root / "common"))
    sys.argv = sys.argv[:1]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        settings = {"vfm": options.vfm, "image_size": options.size, "amp_dtype": options.amp_dtype}
        print(json.dumps(measure(options.root, Path(name), options.images, settings, old)))


def measure(root: Path, folder: Path, images: int, settings: dict[str, Any], old: bool) -> dict[str, float]:
    """Return CPU seconds an image, and those of the teacher's network in them."""
    import torch

    torch.set_num_threads(1)
    pictures = import_module("distillation")  # beside this script
    package = "common" if old else "tskd"
    model = folder / "model.pt"
    spent = [0.0]

    def run(number: int) -> float:
        data = folder / str(number)
        data.mkdir()
        entries = pictures.write_images(data, number + 2, settings["image_size"])
        pictures.write_dataset(import_module(f"{package}.data.datalist"), data, entries)
        few = {**settings, "num_labelled": max(number // 5, 1)}
        parser = _parser(root / "bundles/teacher_segmentation", data, model, few)
        if not model.is_file():
            import_module(f"{package}.state").save_weights(parser.get_parsed_content("network_def"), model)
        network = parser.get_parsed_content("network")
        network.forward_features = _timed(network.forward_features, spent)
        spent[0], began = 0.0, time.process_time()
        parser.get_parsed_content("run")
        return time.process_time() - began

    run(2)
    seconds = run(images)
    return {"s": round(seconds / images, 4), "network": round(spent[0] / images, 4)}


def _parser(bundle: Path, data: Path, model: Path, settings: dict[str, Any]) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / name) for name in ("train.json", "soft_labels.json")])
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(data), "model_file": str(model)})
    parser.update({**settings, "device": "cpu"})
    return parser


def _timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        result = function(*args, **kwargs)
        spent[0] += time.process_time() - began
        return result

    return call


if __name__ == "__main__":
    main()
