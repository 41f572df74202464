"""Intervals and paired tests over patients: bootstrap, Wilcoxon signed-rank, Holm.

The patient is the unit: cases of one patient are averaged before anything here sees them.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tskd.errors import TskdError

ALPHA = 0.05
_EXACT_UP_TO = 200  # pairs; beyond, the normal approximation is good to many digits


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval; `low` and `high` are None where none can be given, `note` says why."""

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str
    note: str = ""


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon signed-rank test of paired values, with the effect size and what the sample size allows."""

    n: int
    n_nonzero: int
    difference: Interval
    p: float
    effect: float
    smallest_p: float
    note: str = ""


def bootstrap_interval(
    values: Sequence[float] | NDArray, confidence: float = 0.95, seed: int = 0, resamples: int = 5000
) -> Interval:
    """Return the mean over patients with its BCa bootstrap interval (Efron 1987); percentile where BCa is undefined.

    Args:
        values: one value a patient, finite.
        confidence: coverage of the interval.
        seed: seed of the resampling.
        resamples: number of bootstrap samples.

    Raises:
        TskdError: no value, or one that is not finite.
    """
    data = np.asarray(values, dtype=float)
    if not data.size or not np.isfinite(data).all():
        raise TskdError(f"expected one finite value a patient, found {data.tolist()}.")
    mean = float(data.mean())
    if data.size == 1:
        return Interval(mean, None, None, 1, "none", "one patient gives no interval")
    if np.ptp(data) == 0:
        return Interval(mean, mean, mean, data.size, "degenerate", "all patients have the same value")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns where BCa is undefined; that is handled here
        bca = stats.bootstrap(
            (data,),
            np.mean,
            n_resamples=resamples,
            confidence_level=confidence,
            method="BCa",
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    low, high, method, note = float(bca.low), float(bca.high), "BCa", ""
    if not (math.isfinite(low) and math.isfinite(high)):
        indices = np.random.default_rng(seed).integers(0, data.size, size=(resamples, data.size))
        low, high = _percentiles(data[indices].mean(axis=1), confidence)
        method, note = "percentile", "BCa is undefined for these values: percentile interval"
    if data.size < 5:
        note = "; ".join(filter(None, [note, f"{data.size} patients: the interval is too narrow"]))
    return Interval(mean, low, high, data.size, method, note)


def hierarchical_interval(
    runs: Mapping[Any, Mapping[str, float]], confidence: float = 0.95, seed: int = 0, resamples: int = 5000
) -> Interval:
    """Return the mean over seeds and patients, with an interval that covers both sources of variance.

    Each bootstrap sample draws seeds and patients with replacement, the same patients for every seed, because the runs
    share their test patients. With one seed this is `bootstrap_interval`, which knows nothing of the seed's chance.

    Args:
        runs: seed -> patient -> value.
        confidence: coverage of the interval.
        seed: seed of the resampling.
        resamples: number of bootstrap samples.
    """
    if len(runs) == 1:
        return bootstrap_interval(list(next(iter(runs.values())).values()), confidence, seed, resamples)
    patients = sorted({patient for values in runs.values() for patient in values})
    table = np.array([[values.get(patient, np.nan) for patient in patients] for values in runs.values()], dtype=float)
    known = np.isfinite(table)
    if not known.any():
        raise TskdError("expected at least one value of a seed and a patient, found none.")
    filled = np.where(known, table, 0.0)
    mean = float(np.nanmean(table, axis=0).mean())
    if len(patients) == 1:
        return Interval(mean, None, None, 1, "none", "one patient gives no interval")
    rng = np.random.default_rng(seed)
    draw_seeds = rng.multinomial(len(runs), [1 / len(runs)] * len(runs), size=resamples)
    draw_patients = rng.multinomial(len(patients), [1 / len(patients)] * len(patients), size=resamples)
    # per sample and patient: the mean over the drawn seeds that have the patient, then the mean over drawn patients
    counts = draw_seeds @ known
    per_patient = np.divide(draw_seeds @ filled, counts, out=np.zeros(counts.shape), where=counts > 0)
    weights = draw_patients * (counts > 0)
    total = weights.sum(axis=1)
    means = (per_patient * weights).sum(axis=1)[total > 0] / total[total > 0]
    low, high = _percentiles(means, confidence)
    note = f"{len(runs)} seeds: their spread is poorly known" if len(runs) < 5 else ""
    return Interval(mean, low, high, len(patients), "hierarchical percentile", note)


def paired_test(
    values: Mapping[str, float], reference: Mapping[str, float], seed: int = 0, comparisons: int = 1
) -> PairedTest:
    """Compute a two-sided Wilcoxon signed-rank test of `values` minus `reference` on the patients both have.

    Pairs without a difference are dropped (Wilcoxon's rule). The null distribution is exact, with or without ties, up
    to 200 pairs. The effect size is the matched-pairs rank-biserial correlation (Kerby 2014): +1 where `values` is
    larger for every patient, -1 where it is smaller, 0 for no tendency.

    Args:
        values: patient -> value of the method.
        reference: patient -> value of the reference.
        seed: seed of the interval of the mean difference.
        comparisons: how many tests will share a Holm correction; for the note only.

    Raises:
        TskdError: no patient in common.
    """
    shared = sorted(set(values) & set(reference))
    if not shared:
        raise TskdError("expected patients that both methods were evaluated on, found none in common.")
    difference = np.array([values[patient] - reference[patient] for patient in shared])
    difference[np.abs(difference) < 1e-12] = 0.0  # equal up to rounding of the mean
    moved = difference[difference != 0]
    n = moved.size
    smallest = min(1.0, 2.0 ** (1 - n)) if n else 1.0
    notes = [] if len(shared) == len(values) == len(reference) else [f"only the {len(shared)} shared patients count"]
    if min(1.0, smallest * comparisons) > ALPHA:
        corrected = f" after correction for {comparisons} comparisons" if comparisons > 1 else ""
        notes.append(f"too few patients: no result could reach p < {ALPHA}{corrected}")
    interval = bootstrap_interval(difference, seed=seed)
    if not n:
        return PairedTest(len(shared), 0, interval, 1.0, 0.0, smallest, "; ".join([*notes, "no patient differs"]))
    # differences that agree to 12 digits are ties
    ranks = stats.rankdata(np.round(np.abs(moved), 12))
    plus, minus = float(ranks[moved > 0].sum()), float(ranks[moved < 0].sum())
    p = _exact_p(ranks, min(plus, minus)) if n <= _EXACT_UP_TO else float(stats.wilcoxon(moved).pvalue)
    return PairedTest(len(shared), n, interval, p, (plus - minus) / (plus + minus), smallest, "; ".join(notes))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values after Holm's step-down correction (1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(order), 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - step) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _exact_p(ranks: NDArray, statistic: float) -> float:
    """Return the two-sided p of a signed-rank sum up to `statistic`, over all 2^n signs; ranks may be halves."""
    doubled = np.rint(2 * ranks).astype(int)
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled:
        moved = np.zeros_like(chance)
        moved[rank:] = chance[: chance.size - rank]
        chance = (chance + moved) / 2
    return min(1.0, 2 * float(chance[: round(2 * statistic) + 1].sum()))


def _percentiles(samples: NDArray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
