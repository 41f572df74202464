"""Folds of the labelled patients: each labelled image can be taught by a teacher that did not see its patient."""

import os

from tskd.data.budget import Budget
from tskd.data.datalist import entries
from tskd.errors import TskdError


def case_folds(dataset_file: str | os.PathLike[str], num_labelled: Budget, folds: int) -> dict[str, int]:
    """Fold of every labelled case; all images of a patient are in one.

    Patients take turns in the order in which the training list first names them, so a patient's fold depends on the
    list and on `folds` alone: it is the same for every number of labels.

    Args:
        dataset_file: path of dataset.json.
        num_labelled: the labelled budget, as `entries` takes it.
        folds: number of folds, at least 2 and at most the number of labelled patients.

    Returns:
        case -> 0 .. folds - 1.

    Raises:
        TskdError: too few patients for so many folds, or as `entries`.
    """
    labelled = entries(dataset_file, "labelled", num_labelled)
    patients = list(dict.fromkeys(entry["group"] for entry in labelled))
    if not 2 <= folds <= len(patients):
        raise TskdError(
            f"folds: expected 2 to {len(patients)} (the labelled patients of {dataset_file}, num_labelled "
            f"{num_labelled}), found {folds}. Choose another number of folds."
        )
    fold = {patient: index % folds for index, patient in enumerate(patients)}
    return {entry["case"]: fold[entry["group"]] for entry in labelled}


def outside_fold(
    dataset_file: str | os.PathLike[str], num_labelled: Budget, folds: int, fold: int
) -> list[dict[str, str]]:
    """Return the labelled entries of all patients but those of one fold: what that fold's teacher is trained on.

    Raises:
        TskdError: no such fold, or as `case_folds`.
    """
    fold_of = case_folds(dataset_file, num_labelled, folds)
    if fold not in range(folds):
        raise TskdError(f"fold: expected 0 to {folds - 1} (folds {folds}), found {fold!r}")
    return [entry for entry in entries(dataset_file, "labelled", num_labelled) if fold_of[entry["case"]] != fold]
