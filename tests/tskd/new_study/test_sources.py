"""`tskd init`: which files are one patient's, and in which list each image is."""

import csv
from pathlib import Path

import pytest

from tests.tskd.new_study.test_write_study import drawn, picture
from tskd.new_study.write_study import new_study


def patients_of(folder: Path, stems: list[str]) -> dict[str, str]:
    """Name of an image -> its patient in the table that `tskd init` writes of such names, {} where it writes none."""
    for number, stem in enumerate(stems):
        picture(folder / f"images/{stem}.png", number)
        drawn(folder / f"masks/{stem}.png")
    study = new_study(folder / "images", folder / "masks", folder / "study.yaml")
    if len(study.files) == 1:
        return {}
    with study.files[1].open(newline="") as file:
        return {Path(row["image"]).stem: row["group"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("digits", [3, 4])
def test_many_numbered_images_of_a_patient_stay_together(tmp_path: Path, digits: int) -> None:
    stems = [f"p{k:02d}_{n:0{digits}d}" for k in range(4) for n in range(1, 16)]
    assert patients_of(tmp_path, stems) == {stem: stem[:3] for stem in stems}


@pytest.mark.parametrize("visits", [["p03_1", "p03_2"], ["p03_pre", "p03_post"], ["p03", "p03_visit2"]])
def test_one_patient_with_two_visits_is_one_beside_others_with_one(tmp_path: Path, visits: list[str]) -> None:
    singles = [f"p{k:02d}" for k in range(4, 17)]
    grouped = patients_of(tmp_path, [*visits, *singles])
    assert grouped == dict.fromkeys(visits, "p03") | {single: single for single in singles}


def test_a_second_visit_of_one_eye_is_the_same_patients(tmp_path: Path) -> None:
    grouped = patients_of(tmp_path, ["07_L", "07_R", "07_L_visit2", *(f"{k:02d}_L" for k in range(8, 14))])
    assert {stem for stem, patient in grouped.items() if patient == "07"} == {"07_L", "07_R", "07_L_visit2"}
    assert len(set(grouped.values())) == 7


@pytest.mark.parametrize("name", ["img_{:04d}", "ISIC_{:07d}", "case_{:03d}", "slice12_{}", "2021-03-{:02d}"])
def test_numbers_of_a_data_set_are_no_patients(tmp_path: Path, name: str) -> None:
    assert patients_of(tmp_path, [name.format(k) for k in range(1, 13)]) == {}
