"""Patient-grouped splits and orders, the same for the same seed on every machine and Python version."""

import random
from collections.abc import Iterable, Sequence

from tskd.errors import TskdError

# the remedy of commands with these options
FEWER_LISTS = "Add patients, or lower --test and --validation (0 leaves the list out)."


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
    of_group: dict[str, list[dict[str, str]]] = {}
    for item in items:
        of_group.setdefault(item["group"], []).append(item)
    for group in _shuffled(of_group, rng):
        queue = sorted(of_group[group], key=lambda item: item["case"])
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
    """Return `k` test sets of patients for cross-validation: each patient is in one, sizes differ by one at most.

    Raises:
        TskdError: fewer patients than folds, or fewer than two folds.
    """
    order = _shuffled(groups, random.Random(seed))
    if not 2 <= k <= len(order):
        raise TskdError(f"folds: expected 2 to {len(order)} (the number of patients), found {k}. Choose fewer folds.")
    return [order[index::k] for index in range(k)]


def choose_lists(
    groups: Iterable[str],
    test: Sequence[str],
    validation: Sequence[str],
    seed: int | None = None,
    fold: int | None = None,
    folds: int = 3,
) -> tuple[dict[str, list[str]], str]:
    """Return the lists of a public data set: its fixed split, another one of the same sizes, or a fold.

    Args:
        groups: patient codes.
        test: test patients of the fixed split.
        validation: validation patients of the fixed split; the rest is training.
        seed: None keeps the fixed split; an integer draws other patients into lists of the same sizes.
        fold: cross-validation fold 0 to `folds` - 1: its test set is that fold, as many others are validation.
        folds: number of folds when `fold` is given.

    Returns:
        {"training", "validation", "test"} -> sorted patient codes, and the rule in words, for the provenance.

    Raises:
        TskdError: patients of the fixed split are missing, or a fold that does not exist.
    """
    groups = sorted(set(groups))
    if fold is not None:
        return fold_lists(groups, fold, folds, len(validation), seed or 0)
    if seed is not None:
        chosen = split_groups(groups, (len(test), len(validation), None), seed)
        rule = f"seed {seed}"
    else:
        missing = sorted({*test, *validation} - set(groups), key=lambda group: (len(group), group))
        if missing:
            raise TskdError(
                f"fixed split: expected {', '.join((*test, *validation))} among the patients, found no "
                f"{', '.join(missing)}. Add them, or draw another split with a seed."
            )
        chosen = [list(test), list(validation), [group for group in groups if group not in (*test, *validation)]]
        rule = "fixed"
    return {name: sorted(chosen[index]) for index, name in ((2, "training"), (1, "validation"), (0, "test"))}, rule


def fold_lists(
    groups: Iterable[str], fold: int, folds: int, num_validation: int, seed: int
) -> tuple[dict[str, list[str]], str]:
    """Split for cross-validation: fold `fold` of `folds` is the test list, `num_validation` others are validation.

    Returns:
        As `choose_lists`.

    Raises:
        TskdError: a fold that does not exist, or too few patients.
    """
    groups = sorted(set(groups))
    tests = grouped_folds(groups, folds, seed)
    if not 0 <= fold < folds:
        raise TskdError(f"fold: expected 0 to {folds - 1}, found {fold}.")
    remaining = sorted(set(groups) - set(tests[fold]))
    validation, training = split_groups(remaining, (num_validation, None), seed)
    lists = {"training": sorted(training), "validation": sorted(validation), "test": sorted(tests[fold])}
    return lists, f"fold {fold} of {folds}, seed {seed}"


def draw_lists(
    groups: Iterable[str],
    test: float,
    validation: float,
    seed: int,
    fold: int | None = None,
    folds: int = 3,
    remedy: str = "Add patients.",
) -> tuple[dict[str, list[str]], str]:
    """Draw the lists of a user's data by shares of the patients, or a fold of a cross-validation.

    Args:
        groups: patient codes.
        test: share of the patients for the test list; a fold takes the place of it.
        validation: share of the patients for the validation list; in a fold at least one patient, unless it is 0.
        seed: seed of the draw.
        fold: None draws by shares; 0 to `folds` - 1 makes that fold the test list.
        folds: number of folds when `fold` is given.
        remedy: as `share_out` takes it.

    Returns:
        As `choose_lists`.

    Raises:
        TskdError: as `share_out` or `fold_lists`.
    """
    groups = sorted(set(groups))
    if fold is None:
        rule = f"drawn by patient: test {test:g}, validation {validation:g}, the rest training, seed {seed}"
        return share_out(groups, test, validation, seed, remedy), rule
    held_out = max(round(validation * len(groups)), int(validation > 0))
    return fold_lists(groups, fold, folds, held_out, seed)


def share_out(
    groups: Iterable[str], test: float, validation: float, seed: int, remedy: str = "Add patients."
) -> dict[str, list[str]]:
    """Draw shares of the patients into {"training", "validation", "test"}; training is the rest.

    Args:
        groups: patient codes.
        test: share for the test list, 0 for none.
        validation: share for the validation list, 0 for none.
        seed: seed of the draw.
        remedy: what the caller's user can do about too few patients.

    Raises:
        TskdError: shares outside [0, 1), or too few patients for the lists.
    """
    groups = sorted(set(groups))
    if not (0 <= test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise TskdError(
            f"test, validation: expected shares of the patients from 0 to below 1 that leave some for training, found "
            f"{test} and {validation}. Give for example 0.2 and 0.1."
        )
    wanted = 1 + (test > 0) + (validation > 0)
    lists = [[], [], groups] if wanted == 1 else [[], [], []]
    if wanted > 1 and len(groups) >= wanted:
        lists = split_groups(groups, (test, validation, None), seed)
    if not lists[2]:
        named = {
            1: "training",
            2: f"training and {'test' if test else 'validation'}",
            3: "training, validation and test",
        }
        raise TskdError(f"patients: expected enough for {named[wanted]}, found {len(groups)} with labels. {remedy}")
    return {"training": sorted(lists[2]), "validation": sorted(lists[1]), "test": sorted(lists[0])}


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
