"""Labelled budgets: numbers of images, whole patients."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tskd.data import case_folds, datalist, entries, whole_patients
from tskd.data.budget import groups_of, split_training
from tskd.data.plausibility import Shown, structure_warnings
from tskd.errors import TskdError

TRAINING = [{"group": group, "case": f"{group}{turn}"} for turn in range(3) for group in "dbac"]


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), st.data())
def test_a_patient_is_labelled_as_a_whole_or_not_at_all(groups, data):
    training = [{"group": group, "case": str(index)} for index, group in enumerate(groups)]
    count = data.draw(st.integers(1, len(set(groups))))
    labelled, others = split_training(training, whole_patients(count), "dataset.json")
    assert len({entry["group"] for entry in labelled}) == count
    assert not {entry["group"] for entry in labelled} & {entry["group"] for entry in others}
    assert sorted(labelled + others, key=training.index) == training
    for part in (labelled, others):
        assert part == sorted(part, key=training.index)  # the order of the list
    more, _ = split_training(training, whole_patients(min(count + 1, len(set(groups)))), "dataset.json")
    assert [entry for entry in more if entry in labelled] == labelled


def test_patients_count_in_the_order_in_which_the_list_names_them():
    labelled, _ = split_training(TRAINING, "2 patients", "dataset.json")
    assert {entry["group"] for entry in labelled} == {"d", "b"}
    assert len(labelled) == 6


def test_too_many_patients_are_refused_with_their_number():
    with pytest.raises(TskdError, match=r"num_labelled_groups: expected 1 to 4 .* found 5"):
        split_training(TRAINING, "5 patients", "dataset.json")


@pytest.mark.parametrize("budget", ["0 patients", "three patients", "3patients", "3 slices"])
def test_other_text_is_no_budget(budget):
    assert groups_of(budget) is None
    with pytest.raises(TskdError, match="whole patients"):
        split_training(TRAINING, budget, "dataset.json")


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "3"])
def test_a_number_of_patients_is_a_whole_one(count):
    with pytest.raises(TskdError, match="num_labelled_groups: expected a whole number of at least 1"):
        whole_patients(count)


def test_sections_and_folds_of_whole_patients(tiny):
    data = datalist.read(tiny)
    first = data["training"][0]["group"]
    of_patient = [entry["case"] for entry in data["training"] if entry["group"] == first]
    assert [entry["case"] for entry in entries(tiny, "labelled", "1 patient")] == of_patient
    unlabelled = [entry["case"] for entry in entries(tiny, "unlabelled", "1 patient")]
    assert not set(of_patient) & set(unlabelled)
    assert len(entries(tiny, "transfer", "1 patient")) == len(of_patient) + len(unlabelled)
    with pytest.raises(TskdError, match="folds: expected 2 to 1"):
        case_folds(tiny, "1 patient", 2)


def test_a_structure_that_no_labelled_patient_shows_is_told():
    shown = Shown(order=[("a", {1}), ("b", {1, 2}), ("a", {1})])
    shown.entries["training", 1], shown.entries["training", 2] = 3, 1
    labels = {"0": "background", "1": "liver", "2": "spleen"}
    (line,) = structure_warnings(shown, labels, "1 patient")
    assert line.startswith("spleen (mask value 2): in no label of the first 1 patient (num_labelled_groups)")
    assert structure_warnings(shown, labels, "2 patients") == []
