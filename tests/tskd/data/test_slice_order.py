"""Slices of a data set in the order of their volume."""

import re

import pytest

from tskd.data.slice_order import slices_by_volume
from tskd.errors import TskdError


def slices(*cases: str, group: str = "p") -> list[dict[str, str]]:
    return [{"case": case, "group": group} for case in cases]


def test_slices_are_ordered_by_number_whatever_their_order_and_digits() -> None:
    entries = slices("scan_10", "scan_009", "b_2", "scan_011", "b_1")
    volumes = slices_by_volume(entries, "here", "it")
    assert list(volumes) == [("p", "scan"), ("p", "b")]
    assert [entry["case"] for entry in volumes["p", "scan"].values()] == ["scan_009", "scan_10", "scan_011"]
    assert list(volumes["p", "b"]) == [1, 2]


def test_a_scan_of_one_name_is_another_in_another_patient() -> None:
    entries = slices("t1_0", "t1_1", group="a") + slices("t1_0", "t1_1", group="b")
    assert list(slices_by_volume(entries, "here", "it")) == [("a", "t1"), ("b", "t1")]


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (("left", "right"), "case 'left' has no slice number"),
        (("ISIC_0000012",), "'ISIC' has one slice only, 12"),
        (("a_0", "a_1", "a_3"), "'a' has slices 0 to 3 without 2"),
        (("a_0", "a_1", "a_01"), "'a' has two slices 1"),
    ],
)
def test_what_is_no_whole_volume_is_named(cases: tuple[str, ...], said: str) -> None:
    with pytest.raises(TskdError, match=f"here: .*as it needs them.*{re.escape(said)}"):
        slices_by_volume(slices(*cases), "here", "it")
