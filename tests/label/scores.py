"""Asks MONAI Label for epistemic scores without a server. Run by an interpreter that has MONAI Label.

Usage: scores.py BUNDLE IMAGE...      prints a JSON list of the images' scores
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

from monai.transforms import Invertd, SaveImaged
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.scoring.epistemic_v2 import EpistemicScoring


def main(bundle: str, *images: str) -> None:
    """Scores as the app monaibundle does with `--conf epistemic_model`."""
    filters: Any = [SaveImaged, Invertd]
    task = BundleInferTask(bundle, conf={}, train_mode=True, skip_writer=True, dropout=0.2, post_filter=filters)
    scores: dict[str, float] = {}
    store: Any = SimpleNamespace(
        get_image_uri=lambda name: name,
        update_image_info=lambda name, info: scores.update({name: info["epistemic_entropy"]}),
    )
    for image in images:
        EpistemicScoring(task).run_scoring(image, 3, 1, store)
    print(json.dumps([scores[image] for image in images]))


if __name__ == "__main__":
    main(*sys.argv[1:])
