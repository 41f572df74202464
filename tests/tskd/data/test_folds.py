"""Folds of labelled patients: disjoint, complete, and the same whatever the number of labels."""

import json
from pathlib import Path

import pytest

from tskd.data import case_folds, entries, outside_fold
from tskd.errors import TskdError


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    """Five patients, of which every prefix of the training list is a fair subset, with three images each."""
    training = [
        {"image": f"{p}_{i}.png", "label": f"{p}_{i}_label.png", "group": f"p{p}", "case": f"{p}_{i}"}
        for i in range(3)
        for p in (3, 1, 4, 0, 2)
    ]
    content = {"name": "x", "modality": "MR", "channels": 1, "labels": {"0": "background", "1": "liver"}}
    content |= {"training": training, "validation": [], "test": []}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path / "dataset.json"


@pytest.mark.parametrize("num_labelled", [5, 9, None])
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_patient_is_left_out_once(dataset_file, num_labelled, folds):
    fold_of = case_folds(dataset_file, num_labelled, folds)
    labelled = entries(dataset_file, "labelled", num_labelled)
    assert set(fold_of) == {entry["case"] for entry in labelled}
    for fold in range(folds):
        inside = {entry["group"] for entry in labelled if fold_of[entry["case"]] == fold}
        outside = outside_fold(dataset_file, num_labelled, folds, fold)
        assert inside
        assert inside.isdisjoint(entry["group"] for entry in outside)
        assert len(outside) == len(labelled) - sum(value == fold for value in fold_of.values())
        assert all("label" in entry for entry in outside)


def test_a_patients_fold_does_not_depend_on_the_number_of_labels(dataset_file):
    few, all_of_them = case_folds(dataset_file, 6, 3), case_folds(dataset_file, None, 3)
    assert few.items() <= all_of_them.items()


def test_wrong_numbers(dataset_file):
    with pytest.raises(TskdError, match=r"expected 2 to 4 \(the labelled patients .*num_labelled 4\), found 5"):
        case_folds(dataset_file, 4, 5)
    with pytest.raises(TskdError, match=r"expected 2 to 5 .*found 1"):
        outside_fold(dataset_file, None, 1, 0)
    with pytest.raises(TskdError, match=r"fold: expected 0 to 2 .*found 3"):
        outside_fold(dataset_file, None, 3, 3)
