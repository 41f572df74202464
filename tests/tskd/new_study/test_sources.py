"""`tskd init`: which files are one patient's, and in which list each image is."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.tskd.new_study.test_write_study import AFFINE, drawn, label, made, picture
from tskd.data.phantom.dicom_writer import write_series
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


def nnunet_fold(root: Path, train: int, held_out: int) -> None:
    """Pictures a_0, a_1, ... with masks, of which fold 0 names these numbers, the last ones for validation."""
    for number in range(train + held_out):
        picture(root / f"imagesTr/a_{number}_0000.png", number)
        drawn(root / f"labelsTr/a_{number}.png")
    names = [f"a_{number}" for number in range(train + held_out)]
    (root / "splits_final.json").write_text(json.dumps([{"train": names[:train], "val": names[train:]}]))


def test_of_an_nnunet_fold_images_without_masks_are_unlabelled_and_cases_outside_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nnunet_fold(tmp_path / "set", 6, 2)
    picture(tmp_path / "set/imagesTr/a_8_0000.png", 8)
    drawn(tmp_path / "set/labelsTr/a_8.png")
    picture(tmp_path / "set/imagesTs/b_9_0000.png", 9)
    _, content = made(tmp_path, tmp_path / "set")
    said = capsys.readouterr().out
    assert "8 pictures with masks, 1 without" in said
    assert "not used: 1 images that fold 0 of splits_final.json does not name (imagesTr/a_8_0000.png)" in said
    assert {entry["case"] for entry in content["test"]} == {"a_6_0000", "a_7_0000"}
    assert [entry["case"] for entry in content["unlabelled"]] == ["b_9_0000"]
    assert (len(content["training"]), len(content["validation"])) == (5, 1)


def test_test_cases_with_masks_beside_an_nnunet_fold_are_tested_and_its_own_validated(tmp_path: Path) -> None:
    nnunet_fold(tmp_path / "set", 5, 2)
    picture(tmp_path / "set/imagesTs/b_9_0000.png", 9)
    drawn(tmp_path / "set/labelsTs/b_9.png")
    _, content = made(tmp_path, tmp_path / "set")
    assert {entry["case"] for entry in content["validation"]} == {"a_5_0000", "a_6_0000"}
    assert [entry["case"] for entry in content["test"]] == ["b_9_0000"]
    assert len(content["training"]) == 5


def test_an_image_without_a_mask_of_a_test_patient_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for section, numbers in (("train", range(4)), ("test", range(4, 6))):
        for number in numbers:
            picture(tmp_path / f"us/{section}/images/p{number}_1.png", number)
            drawn(tmp_path / f"us/{section}/masks/p{number}_1.png")
            picture(tmp_path / f"us/more/images/p{number}_2.png", 50 + number)
    _, content = made(tmp_path, tmp_path / "us")
    homes = {entry["group"]: name for name in ("training", "validation", "test") for entry in content[name]}
    assert {entry["case"] for entry in content["unlabelled"]} == {
        f"{patient}_2" for patient, name in homes.items() if name == "training"
    }
    assert "not used: 3 images without masks of validation and test patients" in capsys.readouterr().out


def test_series_of_a_patient_are_drawn_for_validation_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(16):
        array = np.random.default_rng(number).integers(0, 900, (24, 20, 5)).astype(np.int16)
        section = "train" if number < 12 else "test"
        folder = tmp_path / f"in/{section}"
        write_series(folder / f"images/s{number}", array, AFFINE, f"X{number // 2}", str(number))
        label(folder / f"masks/s{number}.nii.gz", 1)
    _, content = made(tmp_path, tmp_path / "in")
    assert "lists as the folders say: 10 training, 2 validation, 4 test" in capsys.readouterr().out
    assert len({entry["group"] for entry in content["validation"]}) == 1
    assert len(content["validation"]) == 2


def test_images_in_linked_folders_are_found(tmp_path: Path) -> None:
    stems = [f"q{k:02d}" for k in range(8)]
    for number, stem in enumerate(stems):
        picture(tmp_path / f"store/{stem}.png", number)
        drawn(tmp_path / f"drawn/{stem}.png")
    for name, target in (("images", "store"), ("masks", "drawn")):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "linked").symlink_to(tmp_path / target)
    assert "8 pictures with masks" in new_study(tmp_path / "set", None, tmp_path / "study.yaml").seen
