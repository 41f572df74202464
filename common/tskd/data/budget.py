"""The labelled budget: a number of training images, whole patients, or all of the training list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from tskd.errors import TskdError

Budget = int | str | None  # number of training entries, "3 patients", or None for all
Entry = TypeVar("Entry", bound=Mapping[str, str])

_PATIENTS = re.compile(r"([1-9][0-9]*) patients?")


def whole_patients(count: int) -> str:
    """Return the budget of `count` whole patients, as the key `num_labelled` takes it: "3 patients".

    Raises:
        TskdError: not a whole number of at least 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise TskdError(f"num_labelled_groups: expected a whole number of at least 1, found {count!r}.")
    return f"{count} patient{'s' * (count > 1)}"


def groups_of(budget: Budget) -> int | None:
    """Return the number of whole patients of a budget; None for a number of images, or for all."""
    match = _PATIENTS.fullmatch(budget) if isinstance(budget, str) else None
    return int(match[1]) if match else None


def split_training(training: Sequence[Entry], budget: Budget, where: object) -> tuple[list[Entry], list[Entry]]:
    """Split a training list into its labelled entries and the remaining ones, both in the order of the list.

    Patients count in the order in which the list first names them, which is a random one (`split.fair_order`): the
    first 3 are a part of the first 7. All entries of a labelled patient are labelled, none of another one is.

    Args:
        training: entries with the key `group`.
        budget: number of entries, "N patients", or None for all.
        where: file to name in errors.

    Raises:
        TskdError: neither of these, or more than there are.
    """
    if (wanted := groups_of(budget)) is not None:
        patients = list(dict.fromkeys(entry["group"] for entry in training))
        if wanted > len(patients):
            raise TskdError(
                f"num_labelled_groups: expected 1 to {len(patients)} (the patients in the training list of {where}), "
                f"found {wanted}. Lower it, or leave it out to use them all."
            )
        chosen = set(patients[:wanted])
        return [e for e in training if e["group"] in chosen], [e for e in training if e["group"] not in chosen]
    count = len(training) if budget is None else budget
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= len(training):
        raise TskdError(
            f"num_labelled: expected a whole number from 0 to {len(training)} (the training entries of {where}), or "
            f'whole patients ("3 patients"), found {budget!r}. Lower it, or leave it out to use them all.'
        )
    return list(training[:count]), list(training[count:])
