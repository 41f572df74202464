"""Images beside the training images: how alike they are, and from which similarity on an image counts as a copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.synthesis.image_loading import portions, spread
from tskd.synthesis.memorisation import correlation

DUPLICATE = 0.98  # correlation from which two images are one picture: no two patients come near it

Features = Callable[[torch.Tensor], torch.Tensor]


class Descriptors(NamedTuple):
    """What the comparison knows of N images: small pictures N x R x R, features N x D or None, names, patients."""

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
    """Per image, for both comparisons: highest similarity with a training image and index of that image; and why not.

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
        """The verdict on some of the images."""
        pixels, alike = self.copied
        return Verdict(
            self.similarity[part],
            self.twin[part],
            None if self.cosine is None else self.cosine[part],
            None if self.feature_twin is None else self.feature_twin[part],
            (pixels[part], None if alike is None else alike[part]),
            self.empty[part],
        )

    @property
    def flagged(self) -> torch.Tensor:
        """Which of N images do not pass."""
        found = self.copied[0] | self.empty
        return found if self.copied[1] is None else found | self.copied[1]

    def reason(self, row: int) -> str:
        """Why image `row` does not pass; empty if it does."""
        if self.empty[row]:
            return "no structure"
        found = zip(("pixels", "features"), self.copied, strict=True)
        return " and ".join(name for name, copied in found if copied is not None and copied[row])


def read_descriptors(
    items: Sequence[Mapping[str, str]],
    channels: int,
    size: tuple[int, ...],
    resolution: int,
    features: Features | None,
    intensity: Intensity,
    device: str | torch.device,
) -> Descriptors:
    """Read images in small portions, so that no more than a portion is in memory at full size."""
    read = portions(items, size, channels, intensity)
    return join([describe(*portion, resolution, features, device) for portion in read])


def join(parts: Sequence[Descriptors]) -> Descriptors:
    """All images of the parts, in their order; either all parts have features or none has."""
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
    """The same of images N x C x X x Y in [0, 1] that are in memory."""
    vectors = None
    if features is not None:
        with torch.no_grad():
            vectors = torch.cat([features(part.to(device)).float() for part in images.split(16)])
    return Descriptors(correlation.prepare(images.to(device), resolution), vectors, cases, groups)


def subsample(descriptors: Descriptors, limit: int) -> Descriptors:
    """At most `limit` of the images, evenly apart."""
    kept = spread(len(descriptors.cases), limit)
    return Descriptors(
        descriptors.pixels[kept],
        None if descriptors.features is None else descriptors.features[kept],
        [descriptors.cases[k] for k in kept],
        [descriptors.groups[k] for k in kept],
    )


def check_patients(groups: Collection[str], dataset_file: str | os.PathLike[str]) -> None:
    """Raises TskdError for fewer than two patients, `groups` being those of the training images."""
    if len(groups) < 2:
        raise TskdError(
            f"{dataset_file}: expected training images of at least two patients (`group`), found {len(groups)}. The "
            "threshold of the memorisation gate is what different patients reach."
        )


def thresholds(
    training: Descriptors, quantile: float, max_shift: int, max_real: int, dataset_file: str | os.PathLike[str]
) -> Limits:
    """Quantile of the similarities of training images with those of other patients, in both comparisons.

    A picture that is listed under two patients would raise it to 1 and let every copy pass: such pairs (correlation of
    at least `DUPLICATE`) are left out and named.

    Raises:
        TskdError: fewer than two patients, or none whose images differ.
    """
    check_patients(set(training.groups), dataset_file)
    asked = subsample(training, max_real)
    best, _, repeated = correlation.nearest_other_patient(
        asked.pixels, training.pixels, asked.groups, training.groups, DUPLICATE, max_shift
    )
    compared = best > -1
    if not compared.any():
        raise TskdError(
            f"{dataset_file}: expected training images of at least two patients that differ, found the same images "
            "under every patient. Correct the key `group`, or list each image once."
        )
    pairs = sorted({tuple(sorted((asked.cases[a], training.cases[b]))) for a, b in repeated.nonzero().tolist()})
    duplicates = [(first, second) for first, second in pairs]
    limit = float(best[compared].double().quantile(quantile))
    kept = [group for group, usable in zip(asked.groups, compared.tolist(), strict=True) if usable]
    interval = quantile_interval(best[compared].cpu().double().numpy(), kept, quantile)
    if asked.features is None or training.features is None:
        return Limits(limit, None, duplicates, interval)
    same = correlation.same_group(asked.groups, training.groups, asked.features.device)
    cosine = correlation.most_alike_features(asked.features, training.features, same | repeated)[0]
    return Limits(limit, float(cosine[compared].double().quantile(quantile)), duplicates, interval)


def quantile_interval(
    values: np.ndarray, groups: Sequence[str], quantile: float, resamples: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95% bootstrap interval of a quantile of N values, whole groups (patients) drawn with replacement."""
    rng, names = np.random.default_rng(seed), np.asarray(groups)
    members = [values[names == group] for group in np.unique(names)]
    drawn = rng.integers(len(members), size=(resamples, len(members)))
    found = [np.quantile(np.concatenate([members[k] for k in row]), quantile) for row in drawn]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def judge_drawn_to_labels(
    verdict: Verdict,
    images: Descriptors,
    sources: torch.Tensor,
    entries: Sequence[int],
    limits: Limits,
    max_shift: int,
) -> Verdict:
    """The verdict on images that were drawn to warped label maps, each compared with its own source as well.

    A model that copies draws the training image as its label map is warped, which shifts and flips do not undo.

    Args:
        verdict: that of `compare`.
        images: N images.
        sources: small pictures N x R x R of the training images of their maps, warped alike.
        entries: index of each of these among the training images.
        limits: thresholds.
        max_shift: as in `compare`.
    """
    both = zip(images.pixels, sources, strict=True)
    similarity = torch.cat(
        [correlation.most_alike(own[None], source[None], max_shift)[0] for own, source in both]
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
    similarity, twin = correlation.most_alike(images.pixels, training.pixels, max_shift)
    copied = (similarity >= min(limits.pixels, DUPLICATE)).cpu()
    empty = correlation.structureless(images.pixels, max_shift).cpu()
    if images.features is None or training.features is None or limits.features is None:
        return Verdict(similarity.cpu(), twin.cpu(), None, None, (copied, None), empty)
    cosine, other = correlation.most_alike_features(images.features, training.features)
    alike = (cosine > limits.features).cpu()
    return Verdict(similarity.cpu(), twin.cpu(), cosine.cpu(), other.cpu(), (copied, alike), empty)
