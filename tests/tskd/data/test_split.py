"""Splits keep patients together; every prefix of the training order is fair."""

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tskd.data.split import draw_lists, fair_order, grouped_folds, share_out, split_groups
from tskd.errors import TskdError

GROUPS = st.lists(st.text("abcdefghij0123456789", min_size=1, max_size=3), min_size=3, max_size=30, unique=True)
SIZES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=1)


def items_of(sizes: dict[str, int]) -> list[dict[str, str]]:
    return [{"group": g, "case": f"{g}_{k}"} for g, size in sizes.items() for k in range(size)]


@given(GROUPS, st.integers(0, 10**6), st.data())
def test_no_group_in_two_lists_and_none_lost(groups, seed, data):
    validation = data.draw(st.integers(0, len(groups) - 1))
    test = data.draw(st.integers(0, len(groups) - 1 - validation))
    lists = split_groups(groups, (None, validation, test), seed)
    assert [len(part) for part in lists[1:]] == [validation, test]
    assert sorted(chain(*lists)) == sorted(groups)


@given(GROUPS, st.integers(0, 10**6))
def test_fractions_share_out_everyone(groups, seed):
    lists = split_groups(groups, (0.6, 0.2, 0.2), seed)
    assert sorted(chain(*lists)) == sorted(groups)
    assert all(lists)
    assert all(abs(len(part) - f * len(groups)) <= 1 for part, f in zip(lists, (0.6, 0.2, 0.2), strict=True))


def test_split_ignores_order_and_repetition():
    assert split_groups("abcabcd", (2, None), 3) == split_groups("dcba", (2, None), 3)
    assert split_groups(map(str, range(20)), (10, None), 0) != split_groups(map(str, range(20)), (10, None), 1)


@pytest.mark.parametrize("sizes", [(2, 3), (5, None), (0.5, 0.2), (None, None), (-1, None)])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(TskdError, match="4 patients"):
        split_groups("abcd", sizes, 0)


@given(GROUPS, st.integers(2, 5), st.integers(0, 1000))
def test_each_group_is_tested_once(groups, k, seed):
    if k > len(groups):
        with pytest.raises(TskdError, match="folds"):
            grouped_folds(groups, k, seed)
        return
    folds = grouped_folds(groups, k, seed)
    assert len(folds) == k
    assert sorted(chain(*folds)) == sorted(groups)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


@given(SIZES, st.integers(0, 10**6))
def test_every_prefix_is_fair_while_groups_last(sizes, seed):
    order = fair_order(items_of(sizes), seed)
    assert sorted(item["case"] for item in order) == sorted(item["case"] for item in items_of(sizes))
    taken: Counter[str] = Counter()
    for item in order:
        taken[item["group"]] += 1
        most = max(taken.values())
        assert all(taken[g] >= min(most - 1, size) for g, size in sizes.items())


@given(SIZES, st.integers(0, 10**6), st.randoms())
def test_fair_order_depends_on_the_seed_only(sizes, seed, random):
    items = items_of(sizes)
    expected = fair_order(items, seed)
    random.shuffle(items)
    assert fair_order(items, seed) == expected


PINNED = ["a_2", "c_0", "b_0", "a_1", "b_1", "a_0"]


def test_fair_order_is_pinned():
    """Budgets of published numbers rest on this order: it must not change with Python or library versions."""
    order = [item["case"] for item in fair_order(items_of({"a": 3, "b": 2, "c": 1}), 0)]
    assert order == PINNED
    assert [item["case"] for item in fair_order(items_of({"a": 3, "b": 2, "c": 1}), 1)] != PINNED


@pytest.mark.parametrize(
    ("test", "validation", "wanted"),
    [(0.2, 0.1, "training, validation and test"), (0, 0.1, "training and validation"), (0.2, 0, "training and test")],
)
def test_too_few_patients_are_told_with_the_lists_and_the_remedy_of_the_caller(test, validation, wanted):
    with pytest.raises(TskdError) as error:
        share_out(["P1"], test, validation, 0, "Ask your colleagues.")
    assert str(error.value) == f"patients: expected enough for {wanted}, found 1 with labels. Ask your colleagues."
    assert draw_lists(["P1"], 0, 0, 0)[0] == {"training": ["P1"], "validation": [], "test": []}
