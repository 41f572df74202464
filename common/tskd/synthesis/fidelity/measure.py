"""Measure fidelity: KID, FID, precision and recall of synthetic against real images, and of real against real."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import FIDMetric

from tskd.data.datalist import entries, read
from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.synthesis.fidelity.fidelity_table import write_report
from tskd.synthesis.image_loading import image_batches, picture_size

FID_DIMENSIONS = 64  # of the features for FID; with fewer images than this it is not given
MIN_IMAGES = 5  # images in a sample
NUM_SPLITS = 10  # of the training images, for real against real: one halving says little


def kernel_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the kernel Inception distance: unbiased squared MMD, kernel (a.b / D + 1)^3 (arXiv 1801.01401).

    Args:
        first: vectors N x D, N at least 2.
        second: vectors M x D, M at least 2.

    Returns:
        0 in the mean for two samples of one distribution (it may be slightly negative), larger for others.
    """
    a, b = first.double(), second.double()
    n, m = len(a), len(b)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    within_a, within_b = kernel(a, a), kernel(b, b)
    within = (within_a.sum() - within_a.trace()) / (n * (n - 1)) + (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the Fréchet distance of vectors N x D and M x D (MONAI's), which depends on N and M."""
    return float(FIDMetric()(first.double(), second.double()))


def project(vectors: torch.Tensor, dimensions: int = FID_DIMENSIONS, seed: int = 0) -> torch.Tensor:
    """Project vectors N x D on fixed random orthonormal directions, N x `dimensions`; unchanged where D is no larger.

    A Fréchet distance needs more images than dimensions. The directions are the same for every sample of one D, so the
    numbers of two samples compare, of whatever size they are.
    """
    size = vectors.shape[1]
    if size <= dimensions:
        return vectors
    gaussian = torch.randn(size, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vectors.double() @ torch.linalg.qr(gaussian).Q


def precision_recall(real: torch.Tensor, synthetic: torch.Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Return improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991).

    Precision: share of synthetic images inside the balls that reach from each real image to its k-th neighbour, so how
    many look real. Recall: the same the other way round, so how much of the real variety is there.

    Args:
        real: vectors N x D.
        synthetic: vectors M x D.
        neighbours: k, smaller than N and M.
    """

    def covered(points: torch.Tensor, support: torch.Tensor) -> float:
        radius = torch.cdist(support, support).kthvalue(neighbours + 1, dim=1).values  # the nearest one is itself
        return float((torch.cdist(points, support) <= radius).any(1).double().mean())

    real, synthetic = real.double(), synthetic.double()
    return covered(synthetic, real), covered(real, synthetic)


def diversity(sample: torch.Tensor) -> dict[str, float]:
    """Return smallest and median distance of each of N vectors N x D to its nearest neighbour in the sample.

    Far less than among as many real images means that the sample repeats itself.
    """
    distances = torch.cdist(sample.double(), sample.double()).fill_diagonal_(torch.inf).amin(1)
    return {"nearest_min": float(distances.min()), "nearest_median": float(distances.median())}


def measure(
    synthetic_dir: str | os.PathLike[str],
    dataset_file: str | os.PathLike[str],
    features: Callable[[torch.Tensor], torch.Tensor],
    output_file: str | os.PathLike[str],
    limit: int = 1000,
    device: str | torch.device = "cpu",
    mlflow_uri: str | None = None,
    experiment: str = "fidelity",
) -> dict[str, Any]:
    """Compare synthetic images with the real training images, and real ones with real ones.

    Pairs: `synthetic`, the images that passed the gate against the training images. `floor`, one half of the training
    images against the other, drawn at random, so of the same patients, as synthetic images and their models' training
    images are: what a perfect generator would have. `other_patients`, the training images of some patients against
    those of the others, who have about half of the images: how far people are apart. Both are means of `NUM_SPLITS`
    splits (those with `MIN_IMAGES` images on each side), with the smallest and largest KID of these. `held_out`, the
    images of the validation list against the training images, where there are any. Samples have one size, because all
    measures depend on it, but for `other_patients` and `held_out` where there are fewer images; a pair with fewer than
    `MIN_IMAGES` is left out.
    All features are brought to mean 0 and mean variance 1 of the training images. A dataset.json has one modality, so
    the report is of one.

    Args:
        synthetic_dir: folder with the dataset.json of the synthetic images.
        dataset_file: dataset.json of the training images.
        features: from images N x C x X x Y in [0, 1] to vectors N x D; its attribute `name`, if any, is reported.
        output_file: JSON file to write; a table with the suffix .csv is written beside it.
        limit: at most so many images a sample.
        device: where `features` runs.
        mlflow_uri: tracking store that the numbers go to as well, as a run of `experiment`; None for none.
        experiment: name of that experiment.

    Returns:
        {modality, features, fid_features, pairs: {pair: {images, kid, fid, precision, recall, nearest_min,
        nearest_median, real_nearest_min, real_nearest_median, (kid_lowest, kid_highest)}}}, also written to
        `output_file`.

    Raises:
        TskdError: too few images or patients to compare, or no mlflow where it is asked for.
    """
    listed = entries(Path(synthetic_dir, "dataset.json"), "transfer")
    data, intensity, size = read(dataset_file), Intensity.of(dataset_file), picture_size(listed[0]["image"])

    def vectors(items: Sequence[Mapping[str, str]]) -> tuple[torch.Tensor, np.ndarray]:
        parts, groups = [], []
        for images, _, patients in image_batches(items, size, data["channels"], intensity):
            with torch.no_grad():
                parts += [features(part.to(device)).float().cpu() for part in images.split(16)]
            groups += patients
        return torch.cat(parts), np.asarray(groups)

    training, groups = vectors(entries(dataset_file, "transfer"))
    patients = np.unique(groups)
    if len(patients) < 2:
        raise TskdError(f"{dataset_file}: expected training images of at least two patients, found {len(patients)}.")
    rng = np.random.default_rng(0)
    masks = {
        "floor": [rng.permutation(len(groups)) < len(groups) // 2 for _ in range(NUM_SPLITS)],
        "other_patients": [_half_of_the_patients(groups, rng) for _ in range(NUM_SPLITS)],
    }
    synthetic = vectors(listed)[0]
    count = min(limit, len(synthetic), len(training) // 2)
    if count < MIN_IMAGES:
        raise TskdError(
            f"expected at least {MIN_IMAGES} synthetic images and twice as many of training, found "
            f"{len(synthetic)} and {len(training)}. Make more synthetic images, or list more training images."
        )
    centre, spread = training.mean(0), training.var(0).mean().sqrt().clamp_min(1e-12)
    training, synthetic = (training - centre) / spread, (synthetic - centre) / spread

    def compare_subsampled(first: torch.Tensor, second: torch.Tensor, images: int) -> dict[str, float | None]:
        return compare(_subsample(first, images), _subsample(second, images))

    pairs = {"synthetic": compare_subsampled(training, synthetic, count)}
    for name, half_masks in masks.items():
        samples = [(training[torch.from_numpy(half)], training[torch.from_numpy(~half)]) for half in half_masks]
        usable = [parts for parts in samples if min(map(len, parts)) >= MIN_IMAGES]
        if not usable:
            continue
        images = min(count, *(len(part) for parts in usable for part in parts))
        measures = [compare_subsampled(*parts, images) for parts in usable]
        kids = [values["kid"] for values in measures if values["kid"] is not None]
        pairs[name] = _mean(measures) | {"images": images, "kid_lowest": min(kids), "kid_highest": max(kids)}
    if data["validation"]:
        held_out = (vectors(entries(dataset_file, "validation"))[0] - centre) / spread
        images = min(count, len(held_out))
        pairs |= {"held_out": compare_subsampled(training, held_out, images)} if images >= MIN_IMAGES else {}
    report = {
        "modality": data["modality"],
        "features": getattr(features, "name", type(features).__name__),
        "fid_features": f"at most {FID_DIMENSIONS} random orthonormal directions of the features (seed 0)",
        "pairs": pairs,
    }
    write_report(report, Path(output_file), mlflow_uri, experiment)
    return report


def compare(real: torch.Tensor, sample: torch.Tensor) -> dict[str, float | None]:
    """Return all measures of a pair of samples N x D.

    `fid` is that of the features in `FID_DIMENSIONS` directions (`project`). It is None where there are no more images
    than that, or than features: its covariance matrices would be singular.
    """
    precision, recall = precision_recall(real, sample)
    real_projected, sample_projected = project(real), project(sample)
    return {
        "images": len(real),
        "kid": kernel_distance(real, sample),
        "fid": frechet_distance(sample_projected, real_projected)
        if min(len(real), len(sample)) > real_projected.shape[1]
        else None,
        "precision": precision,
        "recall": recall,
        **diversity(sample),
        **{f"real_{name}": value for name, value in diversity(real).items()},
    }


def _half_of_the_patients(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which of N images are of the first patients in a random order that have about half of the images."""
    patients, counts = np.unique(groups, return_counts=True)
    order = rng.permutation(len(patients))
    off = np.abs(counts[order].cumsum()[:-1] - len(groups) / 2)
    return np.isin(groups, patients[order[: off.argmin() + 1]])


def _mean(measures: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each measure, None where it is missing in one."""
    means: dict[str, float | None] = {}
    for name in measures[0]:
        values = [value for pair in measures if (value := pair[name]) is not None]
        means[name] = sum(values) / len(values) if len(values) == len(measures) else None
    return means


def _subsample(sample: torch.Tensor, count: int) -> torch.Tensor:
    return sample[torch.linspace(0, len(sample) - 1, count).round().long()]
