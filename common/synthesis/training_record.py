"""What a diffusion model was trained on, beside its weights: `pipeline/training.json`, hashes without names or paths.

{"images": [SHA-256 of an image's content, ...], "label_maps": {"count": 80, "sha256": "..."} or null}
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.data.datalist import read
from common.errors import TskdError
from common.synthesis.contents import content_hashes
from common.synthesis.images import intensity_window
from common.synthesis.label_maps import labels_sha256

logger = logging.getLogger(__name__)

NAME = "training.json"


def training_record(items: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The record of a training list {image, label?} with absolute paths: contents sorted, so that it tells no order."""
    labels = [item["label"] for item in items if "label" in item]
    return {
        "images": sorted(content for item in items for content in content_hashes(item["image"])),
        "label_maps": {"count": len(labels), "sha256": labels_sha256(labels)} if labels else None,
    }


def read_record(pipeline_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The record of a pipeline; None, with a warning, for one that comes from elsewhere.

    Raises:
        TskdError: a file that is no such record.
    """
    path = Path(pipeline_dir, NAME)
    if not path.is_file():
        logger.warning(
            "%s: no such file, so nobody can tell which images this model was trained on. The memorisation gate "
            "compares with those of the dataset.json that it is given.",
            path,
        )
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"images": list(record["images"]), "label_maps": record["label_maps"]}
    except (ValueError, KeyError, TypeError) as error:
        raise TskdError(f"{path}: expected the keys images and label_maps, found {error!r}. Train again.") from error


def check_trained_on(pipeline_dir: str | os.PathLike[str], dataset_file: str | os.PathLike[str]) -> None:
    """Refuse a dataset.json that lacks images that the model was trained on: copies of these would pass the gate.

    Args:
        pipeline_dir: folder of the exported pipeline; one without a record is let through with a warning.
        dataset_file: dataset.json whose lists `training` and `unlabelled` the gate compares with.

    Raises:
        TskdError: saying how many are missing.
    """
    record = read_record(pipeline_dir)
    if record is None:
        return
    data, folder, window = read(dataset_file), Path(dataset_file).resolve().parent, intensity_window(dataset_file)
    paths = [folder / entry["image"] for name in ("training", "unlabelled") for entry in data[name]]
    missing = set(record["images"]).difference(content for path in paths for content in content_hashes(path, window))
    if missing:
        raise TskdError(
            f"{dataset_file}: expected all {len(set(record['images']))} images that the diffusion model in "
            f"{pipeline_dir} was trained on, found {len(missing)} of them neither in 'training' nor in "
            "'unlabelled'. Copies of these would pass the gate: give the dataset_dir of the model's training."
        )
