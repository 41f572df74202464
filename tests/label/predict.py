"""Asks MONAI Label for masks without a server. Run by an interpreter that has MONAI Label, not by the project's.

Usage: predict.py BUNDLE OUTPUT IMAGE...      writes OUTPUT/<name of the image> for each image
"""

import json
import shutil
import sys
from pathlib import Path

from monailabel.tasks.infer.bundle import BundleInferTask


def main(bundle: str, output: str, *images: str) -> None:
    """Writes the masks and, as the last line of the output, the labels that MONAI Label offers."""
    task = BundleInferTask(bundle, conf={})
    if not task.is_valid():
        raise SystemExit(f"MONAI Label does not take {bundle} as a model")
    for image in images:
        mask, _ = task({"image": image, "device": "cpu"})
        shutil.move(mask, Path(output) / Path(image).name)
    print(json.dumps(task.labels))


if __name__ == "__main__":
    main(*sys.argv[1:])
