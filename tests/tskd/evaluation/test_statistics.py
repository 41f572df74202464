"""Intervals cover, tests equal scipy's and a full enumeration, and small samples say so."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tskd.errors import TskdError
from tskd.evaluation.statistics import bootstrap_interval, hierarchical_interval, holm, paired_test


def named(values: list[float] | np.ndarray) -> dict[str, float]:
    return {f"patient {index:03}": float(value) for index, value in enumerate(values)}


def test_interval_is_near_the_t_interval_for_normal_values() -> None:
    values = np.random.default_rng(1).normal(0.8, 0.05, size=60)
    interval = bootstrap_interval(values)
    low, high = stats.t.interval(0.95, 59, loc=values.mean(), scale=stats.sem(values))
    assert interval.mean == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.002)
    assert (interval.n, interval.method, interval.note) == (60, "BCa", "")
    assert bootstrap_interval(values) == interval
    assert bootstrap_interval(values, seed=1) != interval


def test_interval_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        interval = bootstrap_interval(rng.normal(size=30), resamples=500)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 0 <= interval.high
    assert 86 <= hits <= 100


@pytest.mark.parametrize(
    ("values", "method", "words"),
    [([0.5], "none", "one patient"), ([0.5, 0.5, 0.5], "degenerate", "same value"), ([0.1, 0.4], "BCa", "2 patients")],
)
def test_small_samples_say_so(values: list[float], method: str, words: str) -> None:
    interval = bootstrap_interval(values)
    assert words in interval.note
    assert interval.method in (method, "percentile")
    assert interval.mean == pytest.approx(np.mean(values))


def test_percentile_where_bca_is_undefined(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([0.2, 0.4, 0.9, 0.7, 0.6])
    real = stats.bootstrap

    def undefined(*args: object, **settings: object) -> object:
        result = real(*args, **settings)
        result.confidence_interval = type(result.confidence_interval)(np.nan, np.nan)
        return result

    monkeypatch.setattr(stats, "bootstrap", undefined)
    interval = bootstrap_interval(values)
    assert interval.method == "percentile"
    assert "BCa is undefined" in interval.note
    assert interval.low is not None
    assert interval.high is not None
    assert values.min() <= interval.low < interval.mean < interval.high <= values.max()


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_no_silent_nan(values: list[float]) -> None:
    with pytest.raises(TskdError, match="finite"):
        bootstrap_interval(values)


def test_hierarchical_interval_grows_with_the_spread_of_seeds() -> None:
    rng = np.random.default_rng(3)
    patients = rng.normal(0.8, 0.05, size=12)
    calm = {seed: named(patients) for seed in range(4)}
    wild = {seed: named(patients + shift) for seed, shift in enumerate((-0.1, -0.03, 0.03, 0.1))}
    one = bootstrap_interval(patients)
    a, b = hierarchical_interval(calm), hierarchical_interval(wild)
    assert a.mean == pytest.approx(b.mean) == pytest.approx(one.mean)
    assert None not in (one.low, one.high, a.low, a.high, b.low, b.high)
    widths = [interval.high - interval.low for interval in (one, a, b)]  # type: ignore[operator]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)  # seeds that agree add nothing
    assert widths[2] > 1.5 * widths[1]
    assert b.n == 12
    assert "4 seeds" in b.note
    assert hierarchical_interval({0: named(patients)}) == one


def test_hierarchical_interval_of_seeds_with_patients_of_their_own() -> None:
    """Folds that had seeds of their own: every patient counts once, and seeds that differ widen the interval."""
    rng = np.random.default_rng(3)
    values = {seed: {f"{seed}_{k}": 0.7 + rng.normal(0, 0.02) for k in range(8)} for seed in range(3)}
    alike = hierarchical_interval(values)
    assert alike.mean == pytest.approx(np.mean([v for by_patient in values.values() for v in by_patient.values()]))
    assert alike.n == 24
    assert alike.low is not None and alike.high is not None and alike.low < alike.mean < alike.high  # noqa: PT018
    shifted = hierarchical_interval(
        {s: {k: v + 0.1 * s for k, v in by_patient.items()} for s, by_patient in values.items()}
    )
    assert shifted.low is not None and shifted.high is not None  # noqa: PT018
    assert shifted.high - shifted.low > 3 * (alike.high - alike.low)


def test_hierarchical_interval_with_missing_values() -> None:
    interval = hierarchical_interval({0: {"a": 0.4, "b": 0.6}, 1: {"b": 0.8, "c": 1.0}})
    assert interval.mean == pytest.approx((0.4 + 0.7 + 1.0) / 3)
    assert interval.low is not None
    assert interval.high is not None
    assert 0.4 <= interval.low <= interval.mean <= interval.high <= 1.0


@pytest.mark.parametrize("n", [3, 6, 9, 25])
def test_wilcoxon_equals_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.3, 1, size=n), rng.normal(size=n)
    test = paired_test(named(a), named(b))
    assert test.p == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)
    assert test.n == test.n_nonzero == n
    assert test.difference.mean == pytest.approx((a - b).mean())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_wilcoxon_is_exact_with_ties_and_zeros(steps: list[int]) -> None:
    test = paired_test(named(np.array(steps) / 10 + 0.5), named(np.full(len(steps), 0.5)))
    moved = np.array([step for step in steps if step])
    assert test.n_nonzero == len(moved)
    if not len(moved):
        assert (test.p, test.effect) == (1, 0)
        return
    ranks = stats.rankdata(np.abs(moved))
    observed = min(ranks[moved > 0].sum(), ranks[moved < 0].sum())
    signs = itertools.product((0, 1), repeat=len(moved))
    extreme = sum((ranks * sign).sum() <= observed for sign in (np.array(s) for s in signs))
    assert test.p == pytest.approx(min(1, 2 * extreme / 2 ** len(moved)))
    assert test.effect == pytest.approx((ranks * np.sign(moved)).sum() / ranks.sum())
    assert test.p >= test.smallest_p - 1e-12


def test_large_samples_use_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 1, size=400), rng.normal(size=400)
    assert paired_test(named(a), named(b)).p == pytest.approx(stats.wilcoxon(a, b).pvalue)


def test_too_few_patients_are_named() -> None:
    reference = named(np.zeros(5))
    test = paired_test(named(np.arange(1, 6) / 10), reference)
    assert test.p == test.smallest_p == pytest.approx(0.0625)
    assert test.effect == 1
    assert "too few patients" in test.note
    six = named(np.arange(1, 7) / 10)
    assert paired_test(six, named(np.zeros(6))).note == ""
    assert "after correction for 4 comparisons" in paired_test(six, named(np.zeros(6)), comparisons=4).note
    assert "only the 5 shared patients" in paired_test(six, reference).note
    with pytest.raises(TskdError, match="none in common"):
        paired_test({"a": 1.0}, {"b": 1.0})


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
