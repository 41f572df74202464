"""Similarity of images to the training images, and the threshold from which an image counts as a copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.synthesis.image_loading import evenly_spaced, image_batches
from tskd.synthesis.memorisation import correlation

DUPLICATE = 0.98  # correlation from which two images are one picture: no two patients come near it

Features = Callable[[torch.Tensor], torch.Tensor]


class Descriptors(NamedTuple):
    """Descriptors of N images: high-pass thumbnails N x R x R, features N x D or None, names, patients."""

    pixels: torch.Tensor
    features: torch.Tensor | None
    cases: list[str]
    groups: list[str]


class Limits(NamedTuple):
    """Thresholds of both comparisons, and pairs of cases that are one picture listed under two patients.

    `interval` is the 95% bootstrap interval of `pixels` over the patients that set it.
    """

    pixels: float
    features: float | None
    duplicates: list[tuple[str, str]]
    interval: tuple[float, float] | None = None


class Verdict(NamedTuple):
    """Per image, for both comparisons: highest similarity with a training image, its index, and the reason to flag.

    `copied` says which comparisons find a copy (N each, the second None without features), `empty` which images have no
    structure that could be compared.
    """

    similarity: torch.Tensor
    twin: torch.Tensor
    cosine: torch.Tensor | None
    feature_twin: torch.Tensor | None
    copied: tuple[torch.Tensor, torch.Tensor | None]
    empty: torch.Tensor

    def rows(self, part: slice) -> Verdict:
        """Return the verdict on some of the images."""
        pixels, features = self.copied
        return Verdict(
            self.similarity[part],
            self.twin[part],
            None if self.cosine is None else self.cosine[part],
            None if self.feature_twin is None else self.feature_twin[part],
            (pixels[part], None if features is None else features[part]),
            self.empty[part],
        )

    @property
    def flagged(self) -> torch.Tensor:
        """Which of N images do not pass."""
        flagged = self.copied[0] | self.empty
        return flagged if self.copied[1] is None else flagged | self.copied[1]

    def reason(self, row: int) -> str:
        """Return why image `row` does not pass; empty if it does."""
        if self.empty[row]:
            return "no structure"
        reasons = zip(("pixels", "features"), self.copied, strict=True)
        return " and ".join(name for name, copied in reasons if copied is not None and copied[row])


def read_descriptors(
    items: Sequence[Mapping[str, str]],
    channels: int,
    size: tuple[int, ...],
    resolution: int,
    features: Features | None,
    intensity: Intensity,
    device: str | torch.device,
) -> Descriptors:
    """Read images in batches and describe them, so that only a batch is in memory at full size."""
    read = image_batches(items, size, channels, intensity)
    return join([describe(*portion, resolution, features, device) for portion in read])


def join(parts: Sequence[Descriptors]) -> Descriptors:
    """Concatenate descriptors, in their order; either all parts have features or none has."""
    vectors = [part.features for part in parts if part.features is not None]
    return Descriptors(
        torch.cat([part.pixels for part in parts]),
        torch.cat(vectors) if vectors else None,
        [case for part in parts for case in part.cases],
        [group for part in parts for group in part.groups],
    )


def describe(
    images: torch.Tensor,
    cases: list[str],
    groups: list[str],
    resolution: int,
    features: Features | None,
    device: str | torch.device,
) -> Descriptors:
    """Compute the descriptors of images N x C x X x Y in [0, 1] that are in memory."""
    vectors = None
    if features is not None:
        with torch.no_grad():
            vectors = torch.cat([features(part.to(device)).float() for part in images.split(16)])
    return Descriptors(correlation.pixel_descriptor(images.to(device), resolution), vectors, cases, groups)


def subsample(descriptors: Descriptors, limit: int) -> Descriptors:
    """Return at most `limit` of the images, evenly spaced."""
    indices = evenly_spaced(len(descriptors.cases), limit)
    return Descriptors(
        descriptors.pixels[indices],
        None if descriptors.features is None else descriptors.features[indices],
        [descriptors.cases[k] for k in indices],
        [descriptors.groups[k] for k in indices],
    )


def check_patients(groups: Collection[str], dataset_file: str | os.PathLike[str]) -> None:
    """Raise TskdError for fewer than two patients, `groups` being those of the training images."""
    if len(groups) < 2:
        raise TskdError(
            f"{dataset_file}: expected training images of at least two patients (`group`), found {len(groups)}. The "
            "threshold of the memorisation gate is what different patients reach."
        )


def thresholds(
    training: Descriptors, quantile: float, max_shift: int, max_real: int, dataset_file: str | os.PathLike[str]
) -> Limits:
    """Return the quantile of the similarities of training images with those of other patients, in both comparisons.

    A picture that is listed under two patients would raise it to 1 and let every copy pass: such pairs (correlation of
    at least `DUPLICATE`) are left out and named.

    Raises:
        TskdError: fewer than two patients, or none whose images differ.
    """
    check_patients(set(training.groups), dataset_file)
    queries = subsample(training, max_real)
    best, _, repeated = correlation.nearest_other_patient(
        queries.pixels, training.pixels, queries.groups, training.groups, DUPLICATE, max_shift
    )
    compared = best > -1
    if not compared.any():
        raise TskdError(
            f"{dataset_file}: expected training images of at least two patients that differ, found the same images "
            "under every patient. Correct the key `group`, or list each image once."
        )
    pairs = sorted({tuple(sorted((queries.cases[a], training.cases[b]))) for a, b in repeated.nonzero().tolist()})
    duplicates = [(first, second) for first, second in pairs]
    limit = float(best[compared].double().quantile(quantile))
    groups = [group for group, usable in zip(queries.groups, compared.tolist(), strict=True) if usable]
    interval = quantile_interval(best[compared].cpu().double().numpy(), groups, quantile)
    if queries.features is None or training.features is None:
        return Limits(limit, None, duplicates, interval)
    same = correlation.same_group(queries.groups, training.groups, queries.features.device)
    cosine = correlation.max_cosine_similarity(queries.features, training.features, same | repeated)[0]
    return Limits(limit, float(cosine[compared].double().quantile(quantile)), duplicates, interval)


def quantile_interval(
    values: np.ndarray, groups: Sequence[str], quantile: float, resamples: int = 500, seed: int = 0
) -> tuple[float, float]:
    """Return the 95% cluster bootstrap interval of a quantile of N values; whole groups (patients) are resampled."""
    rng, names = np.random.default_rng(seed), np.asarray(groups)
    members = [values[names == group] for group in np.unique(names)]
    resampled = rng.integers(len(members), size=(resamples, len(members)))
    quantiles = [np.quantile(np.concatenate([members[k] for k in row]), quantile) for row in resampled]
    low, high = np.quantile(quantiles, [0.025, 0.975])
    return float(low), float(high)


def compare_with_label_sources(
    verdict: Verdict,
    images: Descriptors,
    sources: torch.Tensor,
    entries: Sequence[int],
    limits: Limits,
    max_shift: int,
) -> Verdict:
    """Compare images drawn to warped label maps with the training images of these maps, warped alike.

    A model that copies draws the training image as its label map is warped, which shifts and flips do not undo.

    Args:
        verdict: that of `compare`.
        images: N images.
        sources: small pictures N x R x R of the training images of their maps, warped alike.
        entries: index of each of these among the training images.
        limits: thresholds.
        max_shift: as in `compare`.
    """
    pairs = zip(images.pixels, sources, strict=True)
    similarity = torch.cat(
        [correlation.max_cross_correlation(image[None], source[None], max_shift)[0] for image, source in pairs]
    ).cpu()
    nearer = similarity > verdict.similarity
    copied = verdict.copied[0] | (similarity >= min(limits.pixels, DUPLICATE))
    return verdict._replace(
        similarity=torch.where(nearer, similarity, verdict.similarity),
        twin=torch.where(nearer, torch.tensor(entries), verdict.twin),
        copied=(copied, verdict.copied[1]),
    )


def compare(images: Descriptors, training: Descriptors, limits: Limits, max_shift: int) -> Verdict:
    """Compare images with all training images."""
    similarity, twin = correlation.max_cross_correlation(images.pixels, training.pixels, max_shift)
    copied = (similarity >= min(limits.pixels, DUPLICATE)).cpu()
    empty = correlation.structureless(images.pixels, max_shift).cpu()
    if images.features is None or training.features is None or limits.features is None:
        return Verdict(similarity.cpu(), twin.cpu(), None, None, (copied, None), empty)
    cosine, feature_nearest = correlation.max_cosine_similarity(images.features, training.features)
    copied_features = (cosine > limits.features).cpu()
    return Verdict(similarity.cpu(), twin.cpu(), cosine.cpu(), feature_nearest.cpu(), (copied, copied_features), empty)
