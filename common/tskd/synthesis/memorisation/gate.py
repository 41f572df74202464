"""The memorisation gate: a synthetic image that is a training image again does not go on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

from tskd.data.datalist import entries, read
from tskd.data.io.intensity import Intensity
from tskd.data.io.nifti import NIFTI
from tskd.errors import TskdError
from tskd.files import write_json, write_text
from tskd.synthesis.contact_sheet import save
from tskd.synthesis.folder import image_numbers, publish, withdraw
from tskd.synthesis.image_loading import load_images, picture_size, spread
from tskd.synthesis.label_maps import WarpedLabels
from tskd.synthesis.memorisation import correlation
from tskd.synthesis.memorisation.gate_report import pairs, table
from tskd.synthesis.memorisation.positive_control import count_found, find_copies, noisy
from tskd.synthesis.memorisation.similarity import (
    Descriptors,
    Features,
    Limits,
    Verdict,
    check_patients,
    compare,
    describe,
    judge_drawn_to_labels,
    read_descriptors,
    subsample,
    thresholds,
)
from tskd.synthesis.training_record import check_trained_on, seen_by

logger = logging.getLogger(__name__)

FEW = 5  # images above the threshold from which on it is more than the largest values
_SUMMARY = ("threshold", "features", "feature_threshold", "quantile", "synthetic", "held_out")  # goes to provenance


def gate(
    synthetic_dir: str | os.PathLike[str],
    dataset_file: str | os.PathLike[str],
    quantile: float = 0.99,
    resolution: int = 64,
    max_shift: int = 3,
    max_real: int = 1000,
    features: Features | None = None,
    device: str | torch.device = "cpu",
    num_images: int | None = None,
    pipeline_dir: str | os.PathLike[str] | None = None,
    labels: WarpedLabels | None = None,
    copies: int = 30,
) -> dict[str, Any]:
    """Compare every synthetic image with every training image and list those that are no copies in dataset.json.

    Similarity is the normalised cross-correlation over flips and shifts (`correlation.most_alike`). The threshold is a
    quantile of what real images of different patients reach: each training image against all images of the other
    patients. So an image of a new patient is flagged about once in 1 / (1 - quantile), more often where few patients
    set the threshold. Held-out real images (the validation list) are judged by the same rule, as the control group, and
    so are altered copies of training images, which tell what the gate finds and what it does not. An image without any
    structure is flagged, too.

    Written to the folder: memorisation.csv (one line an image), memorisation.json, memorisation.png (the 16 most
    suspicious pairs, synthetic left and training image right), contact_sheet.png and dataset.json without the flagged
    images. The list of an earlier gate is removed first, so that none is there if this one fails.

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
        num_images: only images 0 .. num_images - 1; None for all that the folder has.
        pipeline_dir: the model's exported pipeline, whose training images have all to be in `dataset_file`.
        labels: the label maps that the images were drawn to; each image is then also compared with the training image
            of its map, warped alike, and each held-out image with one that is drawn in the same way.
        copies: so many training images are altered in each of `copies.ALTERATIONS` and judged; 0 for none.

    Returns:
        The content of memorisation.json.

    Raises:
        TskdError: a setting out of range, a dataset.json that lacks images of the model's training, fewer than two
            patients or volumes in it, missing images, or not one image that passes.
    """
    check_gate(dataset_file, quantile, resolution, max_shift, max_real, copies)
    folder, data = Path(synthetic_dir), read(dataset_file)
    withdraw(folder)
    if pipeline_dir is not None:
        check_trained_on(pipeline_dir, dataset_file)
    numbers = image_numbers(folder, num_images)
    listed = [{"image": str(folder / "images" / f"{k:06d}.png"), "case": f"{k:06d}", "group": ""} for k in numbers]
    real = _flat(entries(dataset_file, "transfer"), dataset_file)
    drawn_size = picture_size(listed[0]["image"])
    size = (resolution, resolution) if features is None else drawn_size
    intensity = Intensity.of(dataset_file)

    def seen(items: Sequence[Mapping[str, str]]) -> Descriptors:
        return read_descriptors(items, data["channels"], size, resolution, features, intensity, device)

    training = seen(real)
    level = quantile if features is None else (1 + quantile) / 2
    limits = thresholds(training, level, max_shift, max_real, dataset_file)
    _warn_of_duplicates(limits, dataset_file)
    _warn_of_few(training, level)
    judged = _Judge(training, limits, real, data["channels"], resolution, max_shift, features, labels, device)
    synthetic = judged(seen(listed), numbers)
    report: dict[str, Any] = {
        "threshold": limits.pixels,
        "threshold_interval": None if limits.interval is None else list(limits.interval),
        "feature_threshold": limits.features,
        "quantile": quantile,
        "level": level,
        "features": None if features is None else getattr(features, "name", type(features).__name__),
        "resolution": resolution,
        "max_shift": max_shift,
        "training_images": len(training.cases),
        "training_groups": len(set(training.groups)),
        "duplicates_across_patients": len(limits.duplicates),
        "synthetic": share(synthetic.flagged),
        "structureless": int(synthetic.empty.sum()),
        "copies": judged.altered_copies(copies, drawn_size) if copies else None,
        "held_out": None,
    }
    if data["validation"]:
        held_out = subsample(seen(entries(dataset_file, "validation")), max_real)
        report["held_out"] = share(judged(held_out, range(len(held_out.cases))).flagged)
        report["held_out"]["patients"] = len(set(held_out.groups))
    write_text(folder / "memorisation.csv", table(numbers, training.cases, synthetic, limits))
    write_json(folder / "memorisation.json", report)
    save(pairs(listed, real, synthetic, limits, data["channels"]), folder / "memorisation.png")
    kept = [k for k, flagged in zip(numbers, synthetic.flagged.tolist(), strict=True) if not flagged]
    logger.info("memorisation gate: %d of %d images passed, threshold %.3f", len(kept), len(numbers), limits.pixels)
    if not kept:
        raise TskdError(
            f"{folder}: expected some images that are no copies, found all {len(numbers)} flagged (memorisation.csv). "
            "Train the diffusion model on more patients or for fewer epochs."
        )
    publish(folder, dataset_file, kept, {key: report[key] for key in _SUMMARY}, seen_by(pipeline_dir))
    return report


def check_gate(
    dataset_file: str | os.PathLike[str], quantile: float, resolution: int, max_shift: int, max_real: int, copies: int
) -> None:
    """Refuse settings of `gate` that could not work, so that this is said before the images are drawn.

    Raises:
        TskdError: a setting out of range, or training images of fewer than two patients.
    """
    ranges = {
        "quantile": (0 < quantile <= 1, "a number above 0 and at most 1", quantile),
        "resolution": (resolution >= 16, "16 pixels or more", resolution),
        "max_shift": (0 <= max_shift <= resolution // 4, f"0 to {resolution // 4} pixels of `resolution`", max_shift),
        "max_real": (max_real >= 1, "1 image or more", max_real),
        "copies": (copies >= 0, "0 or more training images to alter", copies),
    }
    for name, (fits, expected, found) in ranges.items():
        if not fits:
            raise TskdError(f"gate#{name}: expected {expected}, found {found}")
    check_patients({entry["group"] for entry in entries(dataset_file, "transfer")}, dataset_file)


@dataclass(frozen=True)
class _Judge:
    """One rule for all images: synthetic ones, the control group and altered copies.

    Where the model draws to label maps, an image is also compared with the training image of its map, warped alike.
    """

    training: Descriptors
    limits: Limits
    real: Sequence[Mapping[str, str]]  # the entries of `training`
    channels: int
    resolution: int
    max_shift: int
    features: Features | None
    labels: WarpedLabels | None
    device: str | torch.device

    def __call__(self, descriptors: Descriptors, drawn_to: Sequence[int] | None = None) -> Verdict:
        """The verdict on images that were drawn to the label maps of these numbers, or stand beside such."""
        verdict = compare(descriptors, self.training, self.limits, self.max_shift)
        if self.labels is None or drawn_to is None:
            return verdict
        places = [self.labels.source(number) for number in drawn_to]
        sources = self._warped_sources(self.labels, drawn_to, places)
        return judge_drawn_to_labels(verdict, descriptors, sources, places, self.limits, self.max_shift)

    def altered_copies(self, count: int, size: tuple[int, ...]) -> dict[str, Any]:
        """How many of `count` training images are found after each alteration: the positive control."""
        originals = self._training_images(spread(len(self.real), count), size)
        found = find_copies(originals, self._look, self)
        if self.labels is not None:
            sources = self._training_images([self.labels.source(k) for k in range(count)], self.labels.size)
            warped = noisy(torch.stack([self.labels.warped(k, image) for k, image in enumerate(sources)]))
            found["warped as its label map, noise: sigma 0.1"] = count_found(self(self._look(warped), range(count)))
        return found

    def _look(self, images: torch.Tensor) -> Descriptors:
        return describe(images, [], [], self.resolution, self.features, self.device)

    def _training_images(self, places: Sequence[int], size: int | tuple[int, ...]) -> torch.Tensor:
        return load_images([self.real[k] for k in places], size, self.channels)[0]

    def _warped_sources(self, labels: WarpedLabels, numbers: Sequence[int], places: Sequence[int]) -> torch.Tensor:
        """The training image of each number's label map, warped alike, as small pictures N x R x R."""
        found: dict[int, torch.Tensor] = {}
        for place in sorted(set(places)):  # each real image is read once, however many are drawn to its map
            image = self._training_images([place], labels.size)[0]
            for number in (number for number, own in zip(numbers, places, strict=True) if own == place):
                warped = labels.warped(number, image)[None].to(self.device)
                found[number] = correlation.prepare(warped, self.resolution)
        return torch.cat([found[number] for number in numbers])


def share(flagged: torch.Tensor) -> dict[str, Any]:
    """Number of images, number and share flagged, and the share's 95% Wilson interval.

    The interval takes the images for independent. Slices of one patient are not, so with them it is too narrow.
    """
    count, found = len(flagged), int(flagged.sum())
    interval = binomtest(found, count).proportion_ci(0.95, method="wilson")
    return {
        "images": count,
        "flagged": found,
        "share": found / count,
        "interval": [float(interval.low), float(interval.high)],
    }


def _flat(items: list[dict[str, str]], dataset_file: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The training images, which have to be 2-D: others cannot have been trained on."""
    if volumes := [item["image"] for item in items if item["image"].endswith(NIFTI)]:
        raise TskdError(
            f"{dataset_file}: expected 2-D images in 'training' and 'unlabelled', as the diffusion model takes them, "
            f"found {len(volumes)} volumes such as {volumes[0]}. List their slices (`tskd prepare` writes them)."
        )
    return items


def _warn_of_few(training: Descriptors, level: float) -> None:
    """A quantile of N values has N (1 - quantile) of them above it; where these are few it is nearly the largest."""
    if len(training.cases) * (1 - level) < FEW:
        logger.warning(
            "memorisation gate: the threshold is the %.4g quantile of %d images of %d patients, so that fewer than %d "
            "of them lie above it: new patients may be flagged several times as often as 1 - quantile says",
            *(level, len(training.cases), len(set(training.groups)), FEW),
        )


def _warn_of_duplicates(limits: Limits, dataset_file: str | os.PathLike[str]) -> None:
    if limits.duplicates:
        logger.warning(
            "%d pairs of training images are one picture of two patients, such as %s and %s; they do not count for the "
            "threshold. Is one patient listed under several groups in %s?",
            len(limits.duplicates),
            *limits.duplicates[0],
            dataset_file,
        )
