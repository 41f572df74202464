"""Patient-grouped splits and orders, the same for the same seed on every machine and Python version."""

import random
from collections.abc import Iterable, Sequence

from common.errors import TskdError


def fair_order(items: Sequence[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """Order entries so that every prefix is a fair subset of the patients.

    Groups are shuffled, entries are shuffled inside each group, then groups take turns. In every prefix two groups
    that are not used up differ by one entry at most. The order of `items` does not matter.

    Args:
        items: entries with the keys `group` and `case`; cases are unique.
        seed: seed of the shuffles.
    """
    rng = random.Random(seed)
    queues = []
    for group in _shuffled({item["group"] for item in items}, rng):
        queue = sorted((item for item in items if item["group"] == group), key=lambda item: item["case"])
        rng.shuffle(queue)
        queues.append(queue)
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def split_groups(groups: Iterable[str], sizes: Sequence[int | float | None], seed: int) -> list[list[str]]:
    """Split patients at random into lists.

    Args:
        groups: patient codes; repetitions count once, their order does not matter.
        sizes: one size a list: counts (int), or fractions (float) that sum to 1; one may be None: the rest.
            A fraction above 0 gets at least one patient.
        seed: seed of the draw.

    Returns:
        One list of patient codes for each size, without overlap, together all of them.

    Raises:
        TskdError: the sizes do not fit the number of patients.
    """
    order = _shuffled(groups, random.Random(seed))
    counts = _counts(len(order), sizes)
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    return [order[end - count : end] for count, end in zip(counts, ends, strict=True)]


def grouped_folds(groups: Iterable[str], k: int, seed: int) -> list[list[str]]:
    """`k` test sets of patients for cross-validation: each patient is in exactly one, sizes differ by one at most.

    Raises:
        TskdError: fewer patients than folds, or fewer than two folds.
    """
    order = _shuffled(groups, random.Random(seed))
    if not 2 <= k <= len(order):
        raise TskdError(f"folds: expected 2 to {len(order)} (the number of patients), found {k}. Choose fewer folds.")
    return [order[index::k] for index in range(k)]


def _shuffled(groups: Iterable[str], rng: random.Random) -> list[str]:
    order = sorted(set(groups))
    rng.shuffle(order)
    return order


def _counts(total: int, sizes: Sequence[int | float | None]) -> list[int]:
    """Sizes as whole numbers that sum to `total`; fractions by largest remainder."""
    given = [0 if size is None else size for size in sizes]
    if all(isinstance(size, int) for size in given):
        counts = [int(size) for size in given]
    else:
        shares = [size * total for size in given]
        counts = [max(int(share + 1e-9), int(share > 0)) for share in shares]
        if None not in sizes and abs(sum(given) - 1) < 1e-6:
            for index in sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])[: max(total - sum(counts), 0)]:
                counts[index] += 1
            while sum(counts) > total and max(counts) > 1:
                counts[counts.index(max(counts))] -= 1
    rest = total - sum(counts)
    if list(sizes).count(None) == 1 and rest >= 0:
        counts[list(sizes).index(None)] = rest
        rest = 0
    if rest != 0 or min(counts, default=0) < 0:
        raise TskdError(
            f"split sizes: expected counts or fractions that share out {total} patients exactly (one may be None: "
            f"the rest), found {list(sizes)}. Correct the sizes."
        )
    return counts
