"""nnU-Net's layout: what is written reads back, and what nnU-Net's own files say is followed."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tskd import data
from tskd.cli import main
from tskd.data import datalist, virtual_patient, write_slices, write_volume
from tskd.data.io.intensity import PERCENTILES
from tskd.data.prepare.nnunet import prepare_nnunet, read_nnunet
from tskd.errors import TskdError
from tskd.export.nnunet_folder import write_nnunet

LABELS = {"0": "background", "1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"}
AFFINE = np.diag([1.5, 1.5, 4.0, 1.0])


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    """Slices of three patients, one of them with pixels that nobody annotated, and a volume to validate and to test."""
    training = []
    for number in range(3):
        image, label, _ = virtual_patient(seed=5, number=number, image_size=32, num_slices=4)
        label = label.astype(np.uint8)
        if number == 0:
            label[:4] = 255
        training += write_slices(tmp_path, f"p{number}", PERCENTILES.scale(image), label)
    lists = {"training": training, "unlabelled": [], "validation": [], "test": []}
    for name, number in (("validation", 3), ("test", 4)):
        image, label, affine = virtual_patient(seed=5, number=number, image_size=32, num_slices=4)
        write_volume(tmp_path / f"volumes/{name}.nii.gz", image, affine)
        write_volume(tmp_path / f"volumes/{name}_label.nii.gz", label.astype(np.uint8), affine)
        entry = {
            "image": f"volumes/{name}.nii.gz",
            "label": f"volumes/{name}_label.nii.gz",
            "group": name,
            "case": name,
        }
        lists[name] = [entry]
    header = {"name": "toy", "modality": "MR", "channels": 1, "labels": LABELS, "provenance": {"licence": "CC0 1.0"}}
    datalist.write(tmp_path / "dataset.json", {**header, "intensity": PERCENTILES.to_json(), **lists})
    return tmp_path / "dataset.json"


def test_what_is_written_has_nnunets_names_and_the_same_pixels(dataset_file: Path, tmp_path: Path) -> None:
    assert main(["export", str(dataset_file), "--to", "nnunet", "--output", str(tmp_path / "Dataset101_toy")]) == 0
    folder = tmp_path / "Dataset101_toy"
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "MR"}
    assert content["labels"] == {**{name: int(value) for value, name in LABELS.items()}, "ignore": 5}
    assert content["file_ending"] == ".png"
    assert content["numTraining"] == len(list((folder / "imagesTr").iterdir())) == 16
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert len(fold["train"]) == 12
    assert fold["val"] == [f"validation_{k:03d}" for k in range(4)]
    assert {path.name for path in (folder / "imagesTs").iterdir()} == {f"test_{k:03d}_0000.png" for k in range(4)}
    for entry in data.read(dataset_file)["training"]:
        mask = np.asarray(Image.open(folder / f"labelsTr/{entry['case']}.png"))
        expected = np.asarray(Image.open(tmp_path / entry["label"]))
        np.testing.assert_array_equal(mask, np.where(expected == 255, 5, expected))
    volume, affine = data.load_volume(tmp_path / "volumes/test.nii.gz")
    image, _ = data.to_lps(volume, affine)
    picture = np.asarray(Image.open(folder / "imagesTs/test_002_0000.png"))
    np.testing.assert_array_equal(picture.T, np.rint(PERCENTILES.scale(image)[:, :, 2] * 255))


def test_the_round_trip_keeps_patients_lists_and_what_is_not_annotated(dataset_file: Path, tmp_path: Path) -> None:
    folder = write_nnunet(dataset_file, tmp_path / "Dataset101_toy")
    assert main(["prepare", "nnunet", str(folder), "--output", str(tmp_path / "again")]) == 0
    before, after = data.read(dataset_file), data.read(tmp_path / "again/dataset.json")
    assert after["labels"] == before["labels"]
    assert (after["modality"], after["channels"]) == ("MR", 1)
    unlabelled = {entry["case"].removesuffix("_0000") for entry in after["unlabelled"]}
    for name, groups in (("training", {"p0", "p1", "p2"}), ("validation", {"validation"}), ("test", {"test"})):
        assert {entry["group"] for entry in after[name]} == groups
    masks = {entry["case"]: entry["label"] for entry in after["training"]}
    assert len(masks) + len(unlabelled) == 12
    for entry in before["training"]:
        mask = np.asarray(Image.open(tmp_path / entry["label"]))
        assert (entry["case"] in unlabelled) is (set(np.unique(mask)) == {0, 255})
        if entry["case"] in unlabelled:
            continue
        again = np.asarray(Image.open(tmp_path / "again" / masks[f"{entry['case']}_0000"]))
        np.testing.assert_array_equal(again, mask)


def test_without_a_validation_list_each_patient_is_held_out_once(dataset_file: Path, tmp_path: Path) -> None:
    content = data.read(dataset_file)
    datalist.write(dataset_file, {**content, "validation": []})
    folder = write_nnunet(dataset_file, tmp_path / "Dataset102_toy")
    folds = json.loads((folder / "splits_final.json").read_text())
    groups = json.loads((folder / "dataset.json").read_text())["tskd"]["groups"]
    held_out = [{groups[case] for case in fold["val"]} for fold in folds]
    assert sorted(map(sorted, held_out)) == [["p0"], ["p1"], ["p2"]]
    assert all(set(fold["train"]) & set(fold["val"]) == set() and len(fold["train"]) == 8 for fold in folds)
    with pytest.raises(TskdError, match="Dataset101_toy"):
        write_nnunet(dataset_file, tmp_path / "nnunet")


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """nnU-Net's folder of five CT volumes with two channels and two folds."""
    folder = tmp_path / "Dataset007_Liver"
    rng = np.random.default_rng(0)
    for number in range(5):
        for channel in range(2):
            array = rng.integers(-900, 900, (20, 18, 3)).astype(np.int16) + 2000 * channel
            write_volume(folder / f"imagesTr/case_{number}_{channel:04d}.nii.gz", array, AFFINE)
        mask = np.zeros((20, 18, 3), np.uint8)
        mask[4:9, 4:9], mask[10:14, 4:9], mask[:2] = 1, 2, 3
        write_volume(folder / f"labelsTr/case_{number}.nii.gz", mask, AFFINE)
    header = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(header))
    names = [f"case_{number}" for number in range(5)]
    folds = [{"train": names[1:], "val": names[:1]}, {"train": names[:3], "val": names[3:]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    return folder


def test_volumes_channels_folds_and_the_ignore_label_are_read(volumes: Path, tmp_path: Path) -> None:
    window = (-100.0, 300.0)
    file = prepare_nnunet(tmp_path / "out", volumes, fold=1, window=window)
    content = data.read(file)
    assert content["labels"] == {"0": "background", "1": "liver", "2": "tumour"}
    assert (content["modality"], content["intensity"]) == ("CT", {"window": [-100.0, 300.0]})
    assert {entry["group"] for entry in content["test"]} == {"case_3", "case_4"}
    assert len({entry["group"] for entry in content["validation"]}) == 1
    label, _ = data.load_volume(tmp_path / "out" / content["test"][0]["label"])
    assert set(np.unique(label)) == {0, 1, 2, 255}
    second = prepare_nnunet(tmp_path / "pet", volumes, channel=1)
    image, _ = data.load_volume(tmp_path / "pet" / data.read(second)["test"][0]["image"])
    assert image.min() > 1000
    assert {entry["group"] for entry in data.read(second)["test"]} == {"case_0"}


def test_labels_stored_with_a_scale_factor_stay_what_they_are(volumes: Path, tmp_path: Path) -> None:
    """As nibabel stores a mask of floats below the header of an int16 image: 1 is read as 0.9999999998."""
    path = volumes / "labelsTr/case_3.nii.gz"
    mask = np.asanyarray(nib.load(path).dataobj).astype(np.float64)
    image = nib.load(volumes / "imagesTr/case_3_0000.nii.gz")
    nib.save(nib.Nifti1Image(mask, image.affine, image.header), path)
    assert not np.isin(np.asanyarray(nib.load(path).dataobj), [0, 1, 2, 3]).all()
    content = data.read(prepare_nnunet(tmp_path / "out", volumes, fold=1))
    masks = {entry["group"]: data.load_volume(tmp_path / "out" / entry["label"])[0] for entry in content["test"]}
    assert set(np.unique(masks["case_4"])) == {0, 1, 2, 255}
    assert np.array_equal(masks["case_3"], masks["case_4"])


def test_init_follows_the_folds(volumes: Path, tmp_path: Path) -> None:
    header = json.loads((volumes / "dataset.json").read_text())
    header["labels"]["third"] = header["labels"].pop("ignore")
    (volumes / "dataset.json").write_text(json.dumps(header))
    assert main(["init", str(volumes), "--output", str(tmp_path / "study.yaml")]) == 0
    rows = [line.split(",") for line in (tmp_path / "study.csv").read_text().splitlines()[1:]]
    lists = {Path(row[0]).name: row[-1] for row in rows}
    assert lists.pop("case_0_0000.nii.gz") == "test"
    assert sorted(lists.values()) == ["training", "training", "training", "validation"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "all": [1, 2], "liver": 1}}, "regions"),
        ({"labels": {"background": 0, "liver": 1, "tumour": 3}}, r"without gaps, found \[1, 3\]"),
        ({"file_ending": ".nrrd"}, "file_ending among"),
        ({"labels": None}, "labels and channel_names"),
    ],
)
def test_what_cannot_be_followed_is_refused(volumes: Path, change: dict[str, object], message: str) -> None:
    header = json.loads((volumes / "dataset.json").read_text())
    (volumes / "dataset.json").write_text(json.dumps({**header, **change}))
    with pytest.raises(TskdError, match=message):
        read_nnunet(volumes)


def test_folds_and_files_that_are_not_there_are_refused(volumes: Path, tmp_path: Path) -> None:
    with pytest.raises(TskdError, match="a fold among 0 to 1, found --fold 2"):
        prepare_nnunet(tmp_path / "out", volumes, fold=2)
    with pytest.raises(TskdError, match="a channel below 2"):
        prepare_nnunet(tmp_path / "out", volumes, channel=2)
    (volumes / "imagesTr/case_2_0000.nii.gz").unlink()
    with pytest.raises(TskdError, match=r"expected an image case_2_0000\.nii\.gz"):
        prepare_nnunet(tmp_path / "out", volumes)
