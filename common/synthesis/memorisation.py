"""The memorisation gate: a synthetic image that is a training image again does not go on."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest

from common.data.datalist import entries, read
from common.errors import TskdError
from common.synthesis import correlation
from common.synthesis.folder import image_numbers, write_dataset, write_text
from common.synthesis.images import intensity_window, load_images, picture_size
from common.synthesis.pictures import contact_sheet, save

logger = logging.getLogger(__name__)

Features = Callable[[torch.Tensor], torch.Tensor]
_BLIND = 0.98  # a threshold above this leaves no room between patients and copies; only a warning hangs on it


class Looks(NamedTuple):
    """What the comparison knows of N images: small pictures N x R x R, features N x D or None, names, patients."""

    pixels: torch.Tensor
    features: torch.Tensor | None
    cases: list[str]
    groups: list[str]


class Verdict(NamedTuple):
    """Per image: highest similarity with a training image, index of that image, whether it is above the threshold."""

    similarity: torch.Tensor
    twin: torch.Tensor
    feature_similarity: torch.Tensor | None
    flagged: torch.Tensor


def gate(
    synthetic_dir: str | os.PathLike[str],
    dataset_file: str | os.PathLike[str],
    quantile: float = 0.99,
    resolution: int = 64,
    max_shift: int = 3,
    max_real: int = 1000,
    features: Features | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Compare every synthetic image with every training image and leave the copies out of dataset.json.

    Similarity is the normalised cross-correlation over flips and shifts (`correlation.most_alike`). The threshold is a
    quantile of what real images of different patients reach: each training image against all images of the other
    patients. So an image of a new patient is flagged about once in 1 / (1 - quantile). Held-out real images (the
    validation list) are judged by the same rule, as the control group.

    Written to the folder: memorisation.csv (one line an image), memorisation.json, memorisation.png (the 16 most
    suspicious pairs, synthetic left and training image right), and dataset.json without the flagged images.

    Args:
        synthetic_dir: folder that `SyntheticFolder` wrote.
        dataset_file: dataset.json that the diffusion model was trained on.
        quantile: of the real-against-real similarities.
        resolution: side of the images compared, in pixels.
        max_shift: pixels of those.
        max_real: at most so many real images to set the threshold, and at most so many held-out ones.
        features: network from images N x C x X x Y in [0, 1] to vectors N x D, for a second comparison (cosine); an
            image is flagged if either says so. Each then gets half of the 1 - quantile that new patients may lose.
        device: where to compute.

    Returns:
        The content of memorisation.json.

    Raises:
        TskdError: fewer than two patients in training, no images, or not one image that passes.
    """
    folder, data = Path(synthetic_dir), read(dataset_file)
    numbers = image_numbers(folder)
    listed = [{"image": str(folder / "images" / f"{k:06d}.png"), "case": f"{k:06d}", "group": ""} for k in numbers]
    real = entries(dataset_file, "transfer")
    size = (resolution, resolution) if features is None else picture_size(listed[0]["image"])
    window = intensity_window(dataset_file)

    def look(items: Sequence[Mapping[str, str]]) -> Looks:
        return _look(items, data["channels"], size, resolution, features, window, device)

    training = look(real)
    _need_two_patients(training, dataset_file)
    level = quantile if features is None else (1 + quantile) / 2
    limits = _thresholds(training, level, max_shift, max_real)
    synthetic = _judge(look(listed), training, limits, max_shift)
    report: dict[str, Any] = {
        "threshold": limits[0],
        "feature_threshold": limits[1],
        "quantile": quantile,
        "features": None if features is None else getattr(features, "name", type(features).__name__),
        "resolution": resolution,
        "max_shift": max_shift,
        "training_images": len(training.cases),
        "training_groups": len(set(training.groups)),
        "synthetic": share(synthetic.flagged),
        "held_out": None,
    }
    if data["validation"]:
        held_out = _thin(look(entries(dataset_file, "validation")), max_real)
        report["held_out"] = share(_judge(held_out, training, limits, max_shift).flagged)
    if limits[0] > _BLIND:
        logger.warning(
            "real images of different patients correlate at %.3f (quantile %s): copies can hardly be told from new "
            "patients. Is one patient listed under several groups in %s?",
            limits[0],
            quantile,
            dataset_file,
        )
    twins = [training.cases[index] for index in synthetic.twin.tolist()]
    write_text(folder / "memorisation.csv", _table(numbers, twins, synthetic, limits))
    write_text(folder / "memorisation.json", json.dumps(report, indent=1) + "\n")
    save(_pairs(listed, twins, synthetic, real, data["channels"], window), folder / "memorisation.png")
    kept = [k for k, flagged in zip(numbers, synthetic.flagged.tolist(), strict=True) if not flagged]
    summary = {key: report[key] for key in ("threshold", "quantile", "synthetic", "held_out")}
    write_dataset(folder, dataset_file, kept, summary)
    logger.info("memorisation gate: %d of %d images passed, threshold %.3f", len(kept), len(numbers), limits[0])
    if not kept:
        raise TskdError(
            f"{folder}: expected some images that are no copies, found all {len(numbers)} flagged (memorisation.csv). "
            "Train the diffusion model on more patients or for fewer epochs."
        )
    return report


def share(flagged: torch.Tensor) -> dict[str, Any]:
    """Number of images, number and share flagged, and the share's 95% Wilson interval."""
    count, found = len(flagged), int(flagged.sum())
    interval = binomtest(found, count).proportion_ci(0.95, method="wilson")
    return {
        "images": count,
        "flagged": found,
        "share": found / count,
        "interval": [float(interval.low), float(interval.high)],
    }


def _thresholds(training: Looks, quantile: float, max_shift: int, max_real: int) -> tuple[float, float | None]:
    """Quantile of the similarities of training images with those of other patients: pixels, features."""
    asked = _thin(training, max_real)
    found = correlation.most_alike(asked.pixels, training.pixels, max_shift, asked.groups, training.groups)[0]
    limit = float(found.double().quantile(quantile))
    if asked.features is None or training.features is None:
        return limit, None
    found = correlation.most_alike_features(asked.features, training.features, asked.groups, training.groups)[0]
    return limit, float(found.double().quantile(quantile))


def _judge(images: Looks, training: Looks, limits: tuple[float, float | None], max_shift: int) -> Verdict:
    similarity, twin = correlation.most_alike(images.pixels, training.pixels, max_shift)
    flagged, cosine = similarity > limits[0], None
    if images.features is not None and training.features is not None and limits[1] is not None:
        cosine = correlation.most_alike_features(images.features, training.features)[0]
        flagged = flagged | (cosine > limits[1])
    return Verdict(similarity.cpu(), twin.cpu(), None if cosine is None else cosine.cpu(), flagged.cpu())


def _look(
    items: Sequence[Mapping[str, str]],
    channels: int,
    size: tuple[int, ...],
    resolution: int,
    features: Features | None,
    window: tuple[float, float] | None,
    device: str | torch.device,
) -> Looks:
    """Read images in small portions, so that no more than a portion is in memory at full size."""
    pixels, vectors, cases, groups = [], [], [], []
    for start in range(0, len(items), 64):
        images, names, patients = load_images(items[start : start + 64], size, channels, window=window)
        pixels.append(correlation.prepare(images.to(device), resolution))
        if features is not None:
            with torch.no_grad():
                vectors.append(torch.cat([features(part.to(device)).float() for part in images.split(16)]))
        cases += names
        groups += patients
    return Looks(torch.cat(pixels), torch.cat(vectors) if vectors else None, cases, groups)


def _thin(looks: Looks, limit: int) -> Looks:
    kept = np.linspace(0, len(looks.cases) - 1, min(limit, len(looks.cases))).round().astype(int)
    return Looks(
        looks.pixels[kept],
        None if looks.features is None else looks.features[kept],
        [looks.cases[k] for k in kept],
        [looks.groups[k] for k in kept],
    )


def _need_two_patients(training: Looks, dataset_file: str | os.PathLike[str]) -> None:
    if len(set(training.groups)) < 2:
        raise TskdError(
            f"{dataset_file}: expected training images of at least two patients (`group`), found "
            f"{len(set(training.groups))}. The threshold of the memorisation gate is what different patients reach."
        )


def _table(numbers: Sequence[int], twins: Sequence[str], verdict: Verdict, limits: tuple[float, float | None]) -> str:
    """memorisation.csv: one line an image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    second = [] if verdict.feature_similarity is None else ["feature_similarity", "feature_threshold"]
    writer.writerow(["synthetic", "training_case", "similarity", "threshold", "flagged", *second])
    for row, number in enumerate(numbers):
        line = [f"{number:06d}", twins[row], f"{float(verdict.similarity[row]):.4f}", f"{limits[0]:.4f}"]
        line.append("yes" if verdict.flagged[row] else "no")
        if verdict.feature_similarity is not None:
            line += [f"{float(verdict.feature_similarity[row]):.4f}", f"{limits[1]:.4f}"]
        writer.writerow(line)
    return text.getvalue()


def _pairs(
    synthetic: Sequence[Mapping[str, str]],
    twins: Sequence[str],
    verdict: Verdict,
    real: Sequence[Mapping[str, str]],
    channels: int,
    window: tuple[float, float] | None,
) -> Image.Image:
    """The 16 pairs of highest similarity: synthetic image left, training image right."""
    size = picture_size(synthetic[0]["image"])
    by_case = {entry["case"]: entry for entry in real}
    tiles, captions = [], []
    for row in verdict.similarity.argsort(descending=True)[:16].tolist():
        pair = load_images([synthetic[row], by_case[twins[row]]], size, channels, window=window)[0]
        tiles.append(torch.cat(list(pair), dim=1))
        captions.append(f"{float(verdict.similarity[row]):.2f}{' flagged' if verdict.flagged[row] else ''}")
    return contact_sheet(tiles, 4, captions)
