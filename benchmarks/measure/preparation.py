"""CPU seconds of `prepare images-masks` and `check`, an image with its mask, in this tree or an older one (`--root`).

    python benchmarks/measure/preparation.py --root . --images FOLDER --masks FOLDER

Prints one line of JSON: CPU and wall-clock seconds of each and of `both`, without imports, and the number of pictures
(files).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Prepare and check, and print what both cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="of the tree whose code is measured")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    options = parser.parse_args()
    old = (options.root / "common/__init__.py").is_file()
    sys.path.insert(0, str(options.root if old else options.root / "common"))
    data = import_module("common.data" if old else "tskd.data")
    prepare, check = data.prepare_images_masks, data.check
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        result: dict[str, float] = {"pictures": 2 * len(list(options.images.iterdir()))}
        for name, action in (
            ("prepare", lambda: prepare(output, ["lesion"], images=options.images, masks=options.masks)),
            ("check", lambda: check(output / "dataset.json")),
        ):
            time.sleep(3)  # as between two commands; files younger than two seconds are read anew each time
            cpu, wall = time.process_time(), time.perf_counter()
            action()
            result[name], result[f"{name}_wall"] = time.process_time() - cpu, time.perf_counter() - wall
    for clock in ("", "_wall"):
        result[f"both{clock}"] = result[f"prepare{clock}"] + result[f"check{clock}"]
    print(json.dumps({key: round(value, 2) for key, value in result.items()}))


if __name__ == "__main__":
    main()
