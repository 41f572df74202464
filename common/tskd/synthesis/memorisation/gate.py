"""Memorisation gate: keep synthetic images that repeat a training image out of the data set."""

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
from tskd.synthesis.folder import image_numbers, publish, unpublish
from tskd.synthesis.image_loading import evenly_spaced, load_images, picture_size
from tskd.synthesis.label_maps import WarpedLabels
from tskd.synthesis.memorisation import correlation
from tskd.synthesis.memorisation.gate_report import pairs, table
from tskd.synthesis.memorisation.positive_control import detect_altered_copies, detection_counts, noisy
from tskd.synthesis.memorisation.similarity import (
    Descriptors,
    Features,
    Limits,
    Verdict,
    check_patients,
    compare,
    compare_with_label_sources,
    describe,
    read_descriptors,
    subsample,
    thresholds,
)
from tskd.synthesis.training_record import check_trained_on, training_hashes

logger = logging.getLogger(__name__)

MIN_ABOVE_THRESHOLD = 5  # images above the threshold from which on it is more than the largest values
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

    Similarity is the normalised cross-correlation over flips and shifts (`correlation.max_cross_correlation`). The
    threshold is a quantile of what real images of different patients reach: each training image against all images of
    the other patients. So an image of a new patient is flagged about once in 1 / (1 - quantile), more often where few
    patients set the threshold. Held-out real images (the validation list) go through the same rule as the control
    group, and so do altered copies of training images, the positive control, which tell what the gate finds and what it
    does not. An image without any structure is flagged, too.

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
        copies: so many training images are altered in each of `positive_control.ALTERATIONS` and compared; 0 for none.

    Returns:
        The content of memorisation.json.

    Raises:
        TskdError: a setting out of range, a dataset.json that lacks images of the model's training, fewer than two
            patients or volumes in it, missing images, or not one image that passes.
    """
    check_gate(dataset_file, quantile, resolution, max_shift, max_real, copies)
    folder, data = Path(synthetic_dir), read(dataset_file)
    unpublish(folder)
    if pipeline_dir is not None:
        check_trained_on(pipeline_dir, dataset_file)
    numbers = image_numbers(folder, num_images)
    listed = [{"image": str(folder / "images" / f"{k:06d}.png"), "case": f"{k:06d}", "group": ""} for k in numbers]
    real = _check_2d(entries(dataset_file, "transfer"), dataset_file)
    drawn_size = picture_size(listed[0]["image"])
    size = (resolution, resolution) if features is None else drawn_size
    intensity = Intensity.of(dataset_file)

    def descriptors_of(items: Sequence[Mapping[str, str]]) -> Descriptors:
        return read_descriptors(items, data["channels"], size, resolution, features, intensity, device)

    training = descriptors_of(real)
    # with two comparisons each may flag half of the images of new patients that the quantile allows
    level = quantile if features is None else (1 + quantile) / 2
    limits = thresholds(training, level, max_shift, max_real, dataset_file)
    _warn_of_duplicates(limits, dataset_file)
    _warn_of_small_sample(training, level)
    gate_rule = _GateRule(training, limits, real, data["channels"], resolution, max_shift, features, labels, device)
    synthetic = gate_rule(descriptors_of(listed), numbers)
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
        "synthetic": flagged_share(synthetic.flagged),
        "structureless": int(synthetic.empty.sum()),
        "copies": gate_rule.altered_copies(copies, drawn_size) if copies else None,
        "held_out": None,
    }
    if data["validation"]:
        held_out = subsample(descriptors_of(entries(dataset_file, "validation")), max_real)
        report["held_out"] = flagged_share(gate_rule(held_out, range(len(held_out.cases))).flagged)
        report["held_out"]["patients"] = len(set(held_out.groups))
    write_text(folder / "memorisation.csv", table(numbers, training.cases, synthetic, limits))
    write_json(folder / "memorisation.json", report)
    save(pairs(listed, real, synthetic, limits, data["channels"]), folder / "memorisation.png")
    # the list goes last: a folder with dataset.json is one whose images have passed
    passed = [k for k, flagged in zip(numbers, synthetic.flagged.tolist(), strict=True) if not flagged]
    logger.info("memorisation gate: %d of %d images passed, threshold %.3f", len(passed), len(numbers), limits.pixels)
    if not passed:
        raise TskdError(
            f"{folder}: expected some images that are no copies, found all {len(numbers)} flagged (memorisation.csv). "
            "Train the diffusion model on more patients or for fewer epochs."
        )
    publish(folder, dataset_file, passed, {key: report[key] for key in _SUMMARY}, training_hashes(pipeline_dir))
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
    for name, (valid, expected, value) in ranges.items():
        if not valid:
            raise TskdError(f"gate#{name}: expected {expected}, found {value}")
    check_patients({entry["group"] for entry in entries(dataset_file, "transfer")}, dataset_file)


@dataclass(frozen=True)
class _GateRule:
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
        """Compare images that were drawn to the label maps of these numbers, or stand beside such."""
        verdict = compare(descriptors, self.training, self.limits, self.max_shift)
        if self.labels is None or drawn_to is None:
            return verdict
        indices = self._source_indices(self.labels, drawn_to)
        sources = self._warped_sources(self.labels, drawn_to, indices)
        return compare_with_label_sources(verdict, descriptors, sources, indices, self.limits, self.max_shift)

    def altered_copies(self, count: int, size: tuple[int, ...]) -> dict[str, Any]:
        """Return how many of `count` training images are found after each alteration: the positive control."""
        originals = self._training_images(evenly_spaced(len(self.real), count), size)
        detections = detect_altered_copies(originals, self._describe, self)
        if self.labels is not None:
            sources = self._training_images(self._source_indices(self.labels, range(count)), self.labels.size)
            warped = noisy(torch.stack([self.labels.warped(k, image) for k, image in enumerate(sources)]))
            detections["warped as its label map, noise: sigma 0.1"] = detection_counts(
                self(self._describe(warped), range(count))
            )
        return detections

    def _describe(self, images: torch.Tensor) -> Descriptors:
        return describe(images, [], [], self.resolution, self.features, self.device)

    def _training_images(self, indices: Sequence[int], size: int | tuple[int, ...]) -> torch.Tensor:
        return load_images([self.real[k] for k in indices], size, self.channels)[0]

    def _source_indices(self, labels: WarpedLabels, numbers: Sequence[int]) -> list[int]:
        """Return where in `real` the images are whose label maps have these numbers; labelled ones may lie anywhere."""
        index = {entry["image"]: k for k, entry in enumerate(self.real)}
        return [index[labels.source(number)] for number in numbers]

    def _warped_sources(self, labels: WarpedLabels, numbers: Sequence[int], indices: Sequence[int]) -> torch.Tensor:
        """Return each number's training image, warped as its label map, as descriptors N x R x R."""
        descriptors: dict[int, torch.Tensor] = {}
        for index in sorted(set(indices)):  # each real image is read once, however many are drawn to its map
            image = self._training_images([index], labels.size)[0]
            for number in (
                number for number, source_index in zip(numbers, indices, strict=True) if source_index == index
            ):
                warped = labels.warped(number, image)[None].to(self.device)
                descriptors[number] = correlation.pixel_descriptor(warped, self.resolution)
        return torch.cat([descriptors[number] for number in numbers])


def flagged_share(flagged: torch.Tensor) -> dict[str, Any]:
    """Return number of images, number and share flagged, and the share's 95% Wilson interval.

    The interval takes the images for independent. Slices of one patient are not, so with them it is too narrow.
    """
    count, num_flagged = len(flagged), int(flagged.sum())
    interval = binomtest(num_flagged, count).proportion_ci(0.95, method="wilson")
    return {
        "images": count,
        "flagged": num_flagged,
        "share": num_flagged / count,
        "interval": [float(interval.low), float(interval.high)],
    }


def _check_2d(items: list[dict[str, str]], dataset_file: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Return the training images after checking that they are 2-D: others cannot have been trained on."""
    if volumes := [item["image"] for item in items if item["image"].endswith(NIFTI)]:
        raise TskdError(
            f"{dataset_file}: expected 2-D images in 'training' and 'unlabelled', as the diffusion model takes them, "
            f"found {len(volumes)} volumes such as {volumes[0]}. List their slices (`tskd prepare` writes them)."
        )
    return items


def _warn_of_small_sample(training: Descriptors, level: float) -> None:
    """Warn where so few values lie above the threshold's quantile that it is nearly the largest."""
    if len(training.cases) * (1 - level) < MIN_ABOVE_THRESHOLD:
        logger.warning(
            "memorisation gate: the threshold is the %.4g quantile of %d images of %d patients, so that fewer than %d "
            "of them lie above it: new patients may be flagged several times as often as 1 - quantile says",
            *(level, len(training.cases), len(set(training.groups)), MIN_ABOVE_THRESHOLD),
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
