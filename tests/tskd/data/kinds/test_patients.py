"""Who the patient is: said by a pattern, a table or DICOM; never two lists for one; and aloud where nobody says it."""

import unicodedata
from pathlib import Path

import pytest

from tests.tskd.data.kinds.studies import (
    AFFINE,
    KINDS,
    image_of,
    label_of,
    make,
    prepare,
    refusal,
    said,
    save_picture,
    save_volume,
)
from tskd.cli import main
from tskd.data import datalist
from tskd.data.phantom.dicom_writer import write_series
from tskd.data.prepare.patients import refuse_alike, several_of_one
from tskd.data.prepare.volumes import prepare_volumes_masks


def _rename(folder: Path, kind: str, names: list[str]) -> None:
    ending = {"pictures": ".png", "volumes": ".nii.gz", "dicom": ""}[kind]
    mask = ".png" if kind == "pictures" else ".nii.gz"
    for number, name in enumerate(names):
        (folder / f"images/p{number}{ending}").rename(folder / f"images/{name}{ending}")
        (folder / f"masks/p{number}{mask}").rename(folder / f"masks/{name}{mask}")


def _homes(dataset_file: Path) -> dict[str, set[str]]:
    homes: dict[str, set[str]] = {}
    for section, entry in datalist.named_entries(datalist.read(dataset_file)):
        homes.setdefault(entry["group"], set()).add("training" if section == "unlabelled" else section)
    return homes


SCANS = ["a_t0", "a_t1", "b_t0", "b_t1", "c_t0", "c_t1"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_keeps_the_scans_of_a_patient_together(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path, kind)
    _rename(folder, kind, SCANS)
    homes = _homes(prepare(folder, kind, group_pattern=r"(\w)_"))
    assert homes.keys() == {"a", "b", "c"}
    assert all(len(lists) == 1 for lists in homes.values())


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_without_one_it_is_said_and_names_like_these_are_warned_of(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path, kind)
    _rename(folder, kind, SCANS)
    text = said(caplog, prepare(folder, kind))
    assert "names look like several scans of one patient" in text
    assert "a_t0, a_t1" in text
    assert "counts as a patient of its own" in text


def test_names_alike_are_warned_of_once_and_a_check_with_a_warning_found_no_other_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path, "pictures")
    _rename(folder, "pictures", SCANS)
    options = ["--images", str(folder / "images"), "--masks", str(folder / "masks"), "--labels", "liver"]
    options += ["--modality", "US", "--test", "0.34", "--validation", "0.17", "--output", str(folder / "data")]
    assert main(["prepare", "images-masks", *options]) == 0
    file, words = folder / "data/dataset.json", "names look like several scans of one patient"
    alike = [record.getMessage() for record in caplog.records if words in record.getMessage()]
    assert len(alike) == 1
    assert "(--group-pattern, or the column group of --table)" in alike[0]
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{file}: no other problem found"
    assert sum(words in record.getMessage() for record in caplog.records) == 2
    assert main(["prepare", "images-masks", *options[:-1], str(folder / "b"), "--group-pattern", "(._t.)"]) == 0
    assert sum(words in record.getMessage() for record in caplog.records) == 2  # the user has said who it is


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["p1_frame01", "p1_frame12", "p2_frame01"], {"p1"}),
        (["p1_pre", "p1_post"], {"p1"}),
        (["001_OD", "001_OS", "002_OD"], {"001"}),
        (["x-1", "x-2", "y-1", "y-2", "z-1"], {"x", "y"}),
        (["t1_P7", "t2_P7"], {"P7"}),
        (["7a", "7b", "8a"], {"7"}),
        (["Pat01_T1", "pat01-T2", "PAT 1 followup", "Pat02_T1"], {"PAT 1"}),
        (["case_1", "case_2", "case_3"], set()),
        (["IMG_0001", "IMG_0002"], set()),
        ([f"p{k:02d}_{n:03d}" for k in range(1, 9) for n in range(20)], {f"p{k:02d}" for k in range(1, 9)}),
        ([f"p{k:02d}_{n:04d}" for k in range(1, 9) for n in range(3)], {f"p{k:02d}" for k in range(1, 9)}),
        (["p03_1", "p03_2", *(f"p{k:02d}" for k in range(4, 17))], {"p03"}),
        ([f"p1_{n}" for n in range(50)] + [f"p2_{n}" for n in range(9)], {"p1", "p2"}),
        ([f"visit{n}_{k:03d}" for n in (1, 2) for k in range(3)], {"000", "001", "002"}),
    ],
)
def test_names_that_look_like_several_of_one(names: list[str], found: set[str]) -> None:
    assert set(several_of_one(names)) == found


@pytest.mark.parametrize("last", ["07_L_visit2", "07 visit2", "07_3", "7b", "07"])
def test_both_eyes_and_further_names_of_a_patient_are_one_group(last: str) -> None:
    assert several_of_one(["07_L", "07_R", last, "08_L", "09_R"]) == {"07": sorted(["07_L", "07_R", last])}


@pytest.mark.parametrize(
    "names",
    [
        [f"img_{k:04d}" for k in range(60)],
        [f"case_{k:03d}" for k in range(60)],
        [f"ISIC_{k:07d}" for k in range(60)],
        [f"BraTS20_Training_{k:03d}" for k in range(60)],
        [f"T2_{k:03d}" for k in range(60)],
        [f"{kind}_{k}" for kind in ("benign", "malignant") for k in range(30)],
        [f"isic{year}_{k:03d}" for year in (2016, 2017) for k in range(30)],
        ["DSC_0001", "DSC_0002", "IMG_0003", "IMG_0004"],
        [f"slice{k}_{n}" for k in range(9, 13) for n in range(5)],
        [f"2021-{month:02d}-{day:02d}" for month in (1, 2, 3) for day in (1, 2, 3)],
        [f"scan_{day:02d}.{month:02d}.2021" for month in (1, 2, 3) for day in (1, 2, 3)],
        [f"202103{day:02d}_{k}" for day in (1, 2, 3) for k in range(3)],
        [f"IMG_202103{day:02d}_{k:04d}" for day in (1, 2, 3) for k in range(3)],
        [f"{year}-{k:04d}" for year in (2021, 2022) for k in range(30)],
        [f"BraTS20_{part}_{k:03d}" for part, count in (("Training", 30), ("Validation", 10)) for k in range(1, count)],
        [f"FLARE22_{part}_{k:04d}" for part, count in (("Tr", 20), ("Ts", 6)) for k in range(1, count)],
        [f"{word}_{k:03d}" for word in ("covid19", "normal") for k in range(1, 16)],
        [f"TCGA-{site}-{k:04d}" for site in ("02", "06", "14") for k in (3, 6, 9, 122, 137, 168)],
        [f"{name}_{k:03d}" for name in ("site1", "site2", "site3") for k in range(1, 20)],
        [f"{name}_{k:03d}" for name in ("brats20", "kits19") for k in range(1, 30)],
        [f"{name}-{k:03d}" for name in ("LUNG1", "LUNG2") for k in range(1, 30)],
    ],
    ids=lambda names: names[-1],
)
def test_numbers_of_a_data_set_and_dates_are_no_patients(names: list[str]) -> None:
    assert several_of_one(names) == {}


def test_many_numbered_images_of_a_patient_are_warned_of_when_prepared_and_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate(f"p{k:02d}_{n:03d}" for k in range(4) for n in range(15)):
        for part, pixels in (("images", image_of(number)), ("masks", label_of(number))):
            (tmp_path / part).mkdir(exist_ok=True)
            save_picture(tmp_path / part / f"{name}.png", pixels[..., 0])
    dataset_file = prepare(tmp_path, "pictures")
    warned = [record.getMessage() for record in caplog.records]
    assert (
        sum("several scans of one patient" in text and "p00_000, p00_001, p00_002; p01" in text for text in warned) == 2
    )  # of the preparation, and of the check behind it
    assert "counts as a patient of its own" in said(caplog, dataset_file)
    caplog.clear()
    prepare(tmp_path / "..", "pictures", images=tmp_path / "images", masks=tmp_path / "masks", group_pattern="^p..")
    assert "several scans" not in caplog.text


@pytest.mark.parametrize("heading", ["group", "Patient", "patient_id", "Patient ID", "SUBJECT", "subject-id", "MRN"])
@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_a_table_says_it_in_any_spelling(tmp_path: Path, kind: str, heading: str) -> None:
    folder = make(tmp_path, kind)
    ending = "png" if kind == "pictures" else "nii.gz"
    rows = [f"image,label,{heading}", *(f"images/p{k}.{ending},masks/p{k}.{ending},q{k // 2}" for k in range(6))]
    (folder / "table.csv").write_text("\n".join(rows))
    homes = _homes(prepare(folder, kind, table=folder / "table.csv"))
    assert homes.keys() == {"q0", "q1", "q2"}


@pytest.mark.parametrize("heading", ["split", "Set", "subset", "Partition"])
@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_a_tables_lists_are_kept(tmp_path: Path, kind: str, heading: str) -> None:
    folder = make(tmp_path, kind)
    ending = "png" if kind == "pictures" else "nii.gz"
    words = ["train", "Training", "val", "TEST", "tr", "testing"]
    rows = [f"image,label,{heading}", *(f"images/p{k}.{ending},masks/p{k}.{ending},{w}" for k, w in enumerate(words))]
    (folder / "table.csv").write_text("\n".join(rows))
    data = datalist.read(prepare(folder, kind, table=folder / "table.csv"))
    assert {e["group"] for e in data["test"]} == {"p3", "p5"}
    assert {e["group"] for e in data["validation"]} == {"p2"}


@pytest.mark.parametrize(
    ("heading", "cells", "words"),
    [
        ("fold", ["0", "1", "2"], "expected a column split"),
        ("group,patient", ["a,b"] * 3, "one column for the group"),
        ("patient,split", ["a,train", "a,test", "b,train"], "each patient in one list"),
        ("patient", ["P1", "p1", "p 1"], "one spelling for each"),
        ("patient", ["01", "1", "2"], "one spelling for each"),
        ("patient", ["P03", "P-3", "2"], "one spelling for each"),
        ("split", ["train", "nowhere", "test"], "'nowhere' is none of"),
    ],
)
@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_tables_that_contradict_themselves(
    tmp_path: Path, kind: str, heading: str, cells: list[str], words: str
) -> None:
    folder = make(tmp_path, kind)
    ending = "png" if kind == "pictures" else "nii.gz"
    rows = [f"images/p{k}.{ending},masks/p{k}.{ending},{cell}" for k, cell in enumerate(cells)]
    (folder / "table.csv").write_text("\n".join([f"image,label,{heading}", *rows]))
    assert words in refusal(folder, kind, table=folder / "table.csv")


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_further_images_of_a_test_patient_are_left_out(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path, kind)
    (folder / "more").mkdir()
    for number in range(6):
        if kind == "pictures":
            save_picture(folder / f"more/p{number}_b.png", image_of(number + 50)[..., 0])
        else:
            save_volume(folder / f"more/p{number}_b.nii.gz", image_of(number + 50))
    homes = _homes(prepare(folder, kind, unlabelled=folder / "more", group_pattern=r"p\d"))
    assert homes.keys() == {f"p{k}" for k in range(6)}
    assert all(len(lists) == 1 for lists in homes.values())


def test_series_of_one_patient_id_are_one_patients(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "dicom")
    for number in (6, 7):
        write_series(folder / f"images/p{number}", image_of(number), AFFINE, f"id{number - 6}", f"again {number}")
        save_volume(folder / f"masks/p{number}.nii.gz", label_of(number))
    path = prepare(folder, "dicom")
    homes = _homes(path)
    assert homes.keys() == {f"p{k}" for k in range(6)}
    assert "PatientID is the same in 2 series" in said(caplog, path)
    assert b"id0" not in path.read_bytes()


def test_spellings_of_one_patient_id_are_one_patients(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "dicom")
    write_series(folder / "images/p6", image_of(6), AFFINE, "ID 00", "again 6")
    save_volume(folder / "masks/p6.nii.gz", label_of(6))
    path = prepare(folder, "dicom")
    assert _homes(path).keys() == {f"p{k}" for k in range(6)}
    assert "PatientID is the same in 1 series" in said(caplog, path)


def test_a_sign_between_digits_tells_patients_apart() -> None:
    refuse_alike(["1-12", "11-2", "112", "P1-12", "P11-2", "1 13", "11 3", "1.05", "1.5"])


def test_one_slice_files_take_a_pattern_too(tmp_path: Path) -> None:
    folder = make(tmp_path, "volumes")
    for number, name in enumerate(SCANS):
        save_volume(folder / f"images/{name}.nii.gz", image_of(number)[..., :1])
        save_volume(folder / f"masks/{name}.nii.gz", label_of(number)[..., :1])
        (folder / f"images/p{number}.nii.gz").unlink()
        (folder / f"masks/p{number}.nii.gz").unlink()
    path = prepare_volumes_masks(
        folder / "data", ["liver"], folder / "images", folder / "masks", test=0.34, validation=0.33, group_pattern="^."
    )
    assert all(len(lists) == 1 for lists in _homes(path).values())


@pytest.mark.parametrize("how", ["folders", "table"])
@pytest.mark.parametrize("kind", KINDS)
def test_letters_that_an_archive_took_apart_are_the_same(tmp_path: Path, kind: str, how: str) -> None:
    """Archives of macOS write the two dots of an umlaut behind its letter."""
    folder = make(tmp_path, kind)
    _rename(folder, kind, [f"Läsion{k}" for k in range(6)])
    for path in list((folder / "images").iterdir()):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    if how == "table":
        (folder / "images").rename(folder / unicodedata.normalize("NFD", "Läsionen"))
    if how == "folders":
        data = datalist.read(prepare(folder, kind))
    else:
        mask = ".png" if kind == "pictures" else ".nii.gz"
        ending = {"pictures": ".png", "volumes": ".nii.gz", "dicom": ""}[kind]
        rows = [f"Läsionen/Läsion{k}{ending},masks/Läsion{k}{mask}" for k in range(6)]
        (folder / "table.csv").write_text("\n".join(["image,label", *rows]))
        data = datalist.read(prepare(folder, kind, table=folder / "table.csv"))
    assert {entry["group"] for _, entry in datalist.named_entries(data)} == {f"Läsion{k}" for k in range(6)}


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_a_mask_is_one_patients(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path, kind)
    ending = "png" if kind == "pictures" else "nii.gz"
    rows = [f"images/p{k}.{ending},masks/p{k - k % 2}.{ending},q{k // 2}" for k in range(6)]
    (folder / "table.csv").write_text("\n".join(["image,label,group", *rows]))
    assert _homes(prepare(folder, kind, table=folder / "table.csv")).keys() == {"q0", "q1", "q2"}
    (folder / "table.csv").write_text("\n".join(["image,label", *(row.rpartition(",")[0] for row in rows)]))
    words = refusal(folder, kind, table=folder / "table.csv")
    assert f"masks: expected one for the images of a patient, found p0.{ending} of p0.{ending} and p1.{ending}" in words
