"""Sets of 2-D images in their owners' layouts: names, observers, fields of view, terms."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tskd.data import checks, datalist
from tskd.data.public.autooral import prepare_autooral
from tskd.data.public.drive import prepare_drive
from tskd.data.public.isic2018 import prepare_isic2018
from tskd.data.public.kidneyus import prepare_kidneyus
from tskd.data.public.kvasir_seg import prepare_kvasir_seg
from tskd.data.public.ph2 import prepare_ph2
from tskd.errors import TskdError

SHAPE = (24, 30)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def photo(number):
    return np.random.default_rng(number).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)


def disc(radius, value=255):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.where((y - 12) ** 2 + (x - 15) ** 2 < radius**2, value, 0).astype(np.uint8)


def pixels(dataset_file, name):
    with Image.open(dataset_file.parent / name) as image:
        return np.asarray(image)


def lists(data):
    return {name: {entry["case"] for entry in data[name]} for name in datalist.LISTS}


@pytest.fixture(scope="module")
def kidneyus(tmp_path_factory):
    """Twelve patients, two of them with two images; the second observer has not labelled two images."""
    folder = tmp_path_factory.mktemp("kidneyUS")
    names = [f"{number}_IM-{number:04d}-0010_anon" for number in range(1, 13)]
    names += ["1_IM-0001-0044_anon", "115_IM-0474-0001-0002_anon", "115_IM-0474-0003_anon"]
    for number, name in enumerate(names):
        save(folder / "kidneyUS_images_14_june_2022" / f"{name}.png", photo(number))
        for observer in (1, 2):
            if observer == 2 and number in (3, 4):
                continue
            masks = folder / "labels" / f"reviewed_masks_{observer}"
            save(masks / "capsule" / f"{name}.png", disc(9 + observer, 1))
            regions = disc(8, 3)
            regions[disc(6) > 0], regions[disc(3) > 0] = 2, 1
            save(masks / "regions" / f"{name}.png", regions)
    (folder / "labels/reviewed_labels_1.csv").write_text("filename,file_size\n")
    save(folder / "kidneyUS_images_14_june_2022" / "200_IM-0900-0001_anon.png", photo(99))  # nobody has labelled it
    return folder


def test_kidneyus_capsule_with_the_second_observer(kidneyus, tmp_path):
    dataset_file = prepare_kidneyus(kidneyus, tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert (data["labels"], data["channels"]) == ({"0": "background", "1": "kidney"}, 1)
    assert [entry["case"] for entry in data["unlabelled"]] == ["200_IM-0900-0001_anon"]
    assert data["test"]
    for entry in data["test"]:
        assert entry["group"] == entry["case"].split("_")[0]
        np.testing.assert_array_equal(pixels(dataset_file, entry["label"]), disc(10, 1))
        np.testing.assert_array_equal(pixels(dataset_file, entry["label_2nd"]), disc(11, 1))
    for group in ("1", "115"):
        assert sum(any(e["group"] == group for e in data[name]) for name in datalist.LISTS) == 1
    assert data["provenance"]["licence"] == "CC BY-NC-SA 4.0"


def test_kidneyus_regions_lie_over_the_capsule(kidneyus, tmp_path):
    data = datalist.read(dataset_file := prepare_kidneyus(kidneyus, tmp_path / "out", structures="regions"))
    assert list(data["labels"].values())[1:] == ["capsule", "central echo complex", "medulla", "cortex"]
    expected = disc(10, 1)
    for radius, value in ((8, 4), (6, 3), (3, 2)):
        expected[disc(radius) > 0] = value
    np.testing.assert_array_equal(pixels(dataset_file, data["training"][0]["label"]), expected)
    folds = [datalist.read(prepare_kidneyus(kidneyus, tmp_path / str(k), fold=k)) for k in range(3)]
    assert sum(len(fold["test"]) for fold in folds) == 15


def test_kidneyus_identical_images_are_one_patient(kidneyus, tmp_path):
    copy = shutil.copytree(kidneyus, tmp_path / "copy")
    images = copy / "kidneyUS_images_14_june_2022"
    shutil.copy(images / "7_IM-0007-0010_anon.png", images / "9_IM-0009-0010_anon.png")
    data = datalist.read(prepare_kidneyus(copy, tmp_path / "out"))
    groups = {e["case"].split("_")[0]: e["group"] for name in datalist.LISTS for e in data[name]}
    assert groups["7"] == groups["9"]
    assert groups["8"] == "8"


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("DRIVE")
    vessel = np.zeros(SHAPE, np.uint8)
    vessel[:, 14:16] = 255
    for part, numbers in (("training", range(21, 31)), ("test", range(1, 5))):
        for number in numbers:
            save(folder / part / "images" / f"{number:02d}_{part}.tif", photo(number))
            save(folder / part / "1st_manual" / f"{number:02d}_manual1.gif", vessel)
            save(folder / part / "mask" / f"{number:02d}_{part}_mask.gif", disc(11))
            if part == "test":
                save(folder / part / "2nd_manual" / f"{number:02d}_manual2.gif", np.roll(vessel, 1, axis=1))
    return folder


def test_drive_is_scored_in_its_field_of_view(drive, tmp_path):
    dataset_file = prepare_drive(drive, tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert lists(data)["test"] == {"01", "02", "03", "04"}
    vessel = np.zeros(SHAPE, np.uint8)
    vessel[:, 14:16] = 1
    outside = disc(11) == 0
    np.testing.assert_array_equal(pixels(dataset_file, data["training"][0]["label"]), vessel)
    for entry in data["validation"] + data["test"]:
        np.testing.assert_array_equal(pixels(dataset_file, entry["label"]), np.where(outside, 255, vessel))
        assert ("label_2nd" in entry) == (entry in data["test"])
    second = pixels(dataset_file, data["test"][0]["label_2nd"])
    np.testing.assert_array_equal(second, np.where(outside, 255, np.roll(vessel, 1, axis=1)))


def test_drive_without_the_test_folder_s_labels(drive, tmp_path):
    copy = shutil.copytree(drive, tmp_path / "copy")
    shutil.rmtree(copy / "test/1st_manual")
    data = datalist.read(prepare_drive(copy, tmp_path / "out"))
    assert lists(data)["unlabelled"] == {"01", "02", "03", "04"}
    assert [len(data[name]) for name in ("training", "validation", "test")] == [7, 1, 2]
    (copy / "training/mask/22_training_mask.gif").unlink()
    with pytest.raises(TskdError, match=r"expected the field of view of 22_training\.tif"):
        prepare_drive(copy, tmp_path / "x")


def test_ph2(tmp_path):
    for number in (2, 3, 4, 6, 8, 9, 10, 11, 12, 13):
        name, place = f"IMD{number:03d}", tmp_path / "PH2Dataset" / "PH2 Dataset images"
        save(place / name / f"{name}_Dermoscopic_Image" / f"{name}.bmp", photo(number))
        save(place / name / f"{name}_lesion" / f"{name}_lesion.bmp", disc(5) > 0)
        save(place / name / f"{name}_roi" / f"{name}_R1_Label3.bmp", disc(2) > 0)
    dataset_file = prepare_ph2(tmp_path / "PH2Dataset", tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert [len(data[name]) for name in ("training", "validation", "test")] == [7, 1, 2]
    np.testing.assert_array_equal(pixels(dataset_file, data["test"][0]["label"]), disc(5, 1))
    assert "ADDI" in data["provenance"]["licence"]
    shutil.rmtree(place / "IMD009" / "IMD009_lesion")
    with pytest.raises(TskdError, match=r"found no .*IMD009_lesion\.bmp \(1 in all\)"):
        prepare_ph2(tmp_path / "PH2Dataset", tmp_path / "x")


def test_isic2018(tmp_path):
    source = tmp_path / "ISIC2018"
    for part, numbers in (("Training", range(6)), ("Validation", (6, 7)), ("Test", (8, 9))):
        for number in numbers:
            name = f"ISIC_{number:07d}"
            save(source / f"ISIC2018_Task1-2_{part}_Input" / f"{name}.jpg", photo(number))
            save(source / f"ISIC2018_Task1_{part}_GroundTruth" / f"{name}_segmentation.png", disc(5))
    for text in ("ATTRIBUTION.txt", "LICENSE.txt"):
        (source / "ISIC2018_Task1-2_Training_Input" / text).write_text("CC-BY-NC")
    dataset_file = prepare_isic2018(source, tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert lists(data)["validation"] == {"ISIC_0000006", "ISIC_0000007"}
    assert lists(data)["test"] == {"ISIC_0000008", "ISIC_0000009"}
    for part in ("Validation", "Test"):
        shutil.rmtree(source / f"ISIC2018_Task1_{part}_GroundTruth")
    data = datalist.read(prepare_isic2018(source, tmp_path / "drawn"))
    assert [len(data[name]) for name in ("training", "validation", "test")] == [4, 1, 1]
    with pytest.raises(TskdError, match="ISIC2018_Task1-2_Training_Input"):
        prepare_isic2018(tmp_path, tmp_path / "x")


def test_kvasir_seg_reads_its_jpeg_masks(tmp_path):
    for number in range(10):
        for folder, image in (("images", photo(number)), ("masks", np.repeat(disc(7)[..., None], 3, axis=2))):
            save(tmp_path / "Kvasir-SEG" / folder / f"cju{number}.jpg", image, quality=85)
    (tmp_path / "Kvasir-SEG" / "kavsir_bboxes.json").write_text("{}")
    dataset_file = prepare_kvasir_seg(tmp_path / "Kvasir-SEG", tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    label = pixels(dataset_file, data["test"][0]["label"])
    assert set(np.unique(label)) == {0, 1}
    assert np.mean(label != disc(7, 1)) < 0.01
    save(tmp_path / "Kvasir-SEG/masks/cju3.jpg", disc(7)[:-1])
    with pytest.raises(TskdError, match=r"masks/cju3\.jpg: expected the size of its image, 30 x 24, found 30 x 23"):
        prepare_kvasir_seg(tmp_path / "Kvasir-SEG", tmp_path / "x")


@pytest.mark.parametrize("parts", [("",), ("train", "val", "test")])
def test_autooral(tmp_path, parts):
    for at, part in enumerate(parts):
        for number in range(10 if at == 0 else 2):
            save(tmp_path / "in" / part / "images" / f"{number}.png", photo(20 * at + number))
            save(tmp_path / "in" / part / "Masks" / f"{number}.png", disc(6))
    dataset_file = prepare_autooral(tmp_path / "in", tmp_path / "out")
    checks.check(dataset_file)
    sizes = [len(datalist.read(dataset_file)[name]) for name in ("training", "validation", "test")]
    assert sizes == ([10, 2, 2] if len(parts) > 1 else [7, 1, 2])
    with pytest.raises(TskdError, match="expected a folder of images"):
        prepare_autooral(tmp_path, tmp_path / "x")
