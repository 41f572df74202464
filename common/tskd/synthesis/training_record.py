"""What a diffusion model was trained on, beside its weights: `pipeline/training.json`, hashes without names or paths.

{"images": [SHA-256 of an image's content, ...], "label_maps": {"count": 80, "sha256": "..."} or null,
"pretrained_on": [likewise, of the pipeline that it began with]}
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.data import fingerprint
from tskd.data.datalist import read
from tskd.data.hashing import content_hashes
from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.synthesis.label_maps import labels_sha256
from tskd.synthesis.pretrained import start_sha256

logger = logging.getLogger(__name__)

NAME = "training.json"


def training_record(
    items: Sequence[Mapping[str, str]], init_from: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Return the record of a training list {image, label?} with absolute paths: contents sorted, so without order.

    Args:
        items: the list.
        init_from: folder of the pipeline that the training began with; what its own record lists is passed on.
    """
    labels = [item["label"] for item in items if "label" in item]
    return {
        "images": sorted(content for item in items for content in content_hashes(item["image"])),
        "label_maps": {"count": len(labels), "sha256": labels_sha256(labels)} if labels else None,
        "pretrained_on": sorted(training_hashes(init_from)),
    }


def record_sha256(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a `training_record`, which a checkpoint is bound to."""
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def training_fingerprints(
    dataset_file: str | os.PathLike[str], record: Mapping[str, Any], init_from: str | os.PathLike[str] | None
) -> dict[str, str | None]:
    """Return what identifies the files of a training: dataset.json, its images, the weights that it begins with."""
    return {
        "dataset": fingerprint(Path(dataset_file)),
        "training": record_sha256(record),
        "init_from": start_sha256(init_from),
    }


def training_hashes(pipeline_dir: str | os.PathLike[str] | None) -> set[str]:
    """Return the hashes of all images that a pipeline, or one that it began with, was trained on, if recorded."""
    record = None if pipeline_dir is None else read_record(pipeline_dir)
    return {*record["images"], *record["pretrained_on"]} if record else set()


def read_record(pipeline_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the record of a pipeline; None, with a warning, for one that comes from elsewhere.

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
        images, pretrained_on = list(record["images"]), list(record["pretrained_on"])
        return {"images": images, "label_maps": record["label_maps"], "pretrained_on": pretrained_on}
    except (ValueError, KeyError, TypeError) as error:
        expected = "expected the keys images, label_maps and pretrained_on"
        raise TskdError(f"{path}: {expected}, found {error!r}. Train again.") from error


def check_trained_on(pipeline_dir: str | os.PathLike[str], dataset_file: str | os.PathLike[str]) -> None:
    """Refuse a dataset.json that lacks images that the model was trained on: copies of these would pass the gate.

    Images of an earlier training (`init_from`) that it lacks are let through with a warning: they are often elsewhere.

    Args:
        pipeline_dir: folder of the exported pipeline; one without a record is let through with a warning.
        dataset_file: dataset.json whose lists `training` and `unlabelled` the gate compares with.

    Raises:
        TskdError: saying how many are missing.
    """
    record = read_record(pipeline_dir)
    if record is None:
        return
    data, folder, intensity = read(dataset_file), Path(dataset_file).resolve().parent, Intensity.of(dataset_file)
    paths = [folder / entry["image"] for name in ("training", "unlabelled") for entry in data[name]]
    listed = {content for path in paths for content in content_hashes(path, intensity)}
    if unknown := set(record["pretrained_on"]) - listed:
        logger.warning(
            "%s: %d images that the model was trained on before (init_from) are not in this data set; the memorisation "
            "gate does not find copies of them.",
            dataset_file,
            len(unknown),
        )
    if missing := set(record["images"]) - listed:
        raise TskdError(
            f"{dataset_file}: expected all {len(set(record['images']))} images that the diffusion model in "
            f"{pipeline_dir} was trained on, found {len(missing)} of them neither in 'training' nor in "
            "'unlabelled'. Copies of these would pass the gate: give the dataset_dir of the model's training."
        )
