"""ISIC 2017, USGRA and CHASE_DB1: folders, splits, second observer, field of view."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tskd.data import checks, datalist
from tskd.data.public.chase_db1 import prepare_chase_db1
from tskd.data.public.field_of_view import field_of_view
from tskd.data.public.isic2017_usgra import prepare_isic2017, prepare_usgra
from tskd.errors import TskdError

CHILDREN = ["01", "02", "04", "05", "08", "13"]


def blob(rng, shape, value):
    mask = np.zeros(shape, np.uint8)
    top, left = rng.integers(2, 6, 2)
    mask[top : top + 5, left : left + 8] = value
    return mask


def train_test(folder, channels, value, counts=(20, 4)):
    rng = np.random.default_rng(channels)
    for part, numbers in zip(("train", "test"), (range(counts[0]), range(counts[0], sum(counts))), strict=True):
        for name in ("images", "masks"):
            (folder / part / name).mkdir(parents=True)
        for number in numbers:
            shape = (16, 20, 3)[: 2 + (channels == 3)]
            Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(
                folder / part / f"images/{number:04d}.png"
            )
            Image.fromarray(blob(rng, (16, 20), value)).save(folder / part / f"masks/{number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def usgra(tmp_path_factory):
    return train_test(tmp_path_factory.mktemp("usgra"), 1, 2)


@pytest.fixture(scope="module")
def chase(tmp_path_factory):
    """Both eyes of six children: a disc of 60 pixels in a dark frame, its vessels, some of them outside."""
    folder = tmp_path_factory.mktemp("chase")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :70]
    disc = (y - 32) ** 2 + (x - 35) ** 2 < 30**2
    for name in ("images", "masks", "masks_2nd_observer"):
        (folder / name).mkdir()
    for eye in (f"Image_{child}{side}" for child in CHILDREN for side in "LR"):
        image = rng.integers(60, 200, (64, 70, 3), dtype=np.uint8) * disc[..., None].astype(np.uint8)
        Image.fromarray(image).save(folder / f"images/{eye}.png")
        for name, column in (("masks", 30), ("masks_2nd_observer", 31)):
            mask = np.zeros((64, 70), bool)
            mask[:, column : column + 2] = True
            Image.fromarray(mask).save(folder / name / f"{eye}.png")
    return folder, disc


def pixels(dataset_file, name):
    with Image.open(dataset_file.parent / name) as image:
        return np.asarray(image)


def groups(data, name):
    return {entry["group"] for entry in data[name]}


def test_test_folder_stays_the_test_list(usgra, tmp_path):
    files = [prepare_usgra(usgra, tmp_path / str(seed), seed=seed) for seed in (None, 1)]
    for dataset_file in files:
        checks.check(dataset_file)
        data = datalist.read(dataset_file)
        assert {entry["case"] for entry in data["test"]} == {f"{number:04d}" for number in range(20, 24)}
        assert [len(data[name]) for name in ("training", "validation")] == [18, 2]
        assert "each image counts as a patient" in data["provenance"]["groups"]
        assert str(usgra) not in json.dumps(data)
        assert data["channels"] == 1
        entry = data["validation"][0]
        part = usgra / "train"
        np.testing.assert_array_equal(
            pixels(dataset_file, entry["image"]), pixels(part / "x", f"images/{entry['case']}.png")
        )
        np.testing.assert_array_equal(
            pixels(dataset_file, entry["label"]), pixels(part / "x", f"masks/{entry['case']}.png")
        )
    assert groups(datalist.read(files[0]), "validation") != groups(datalist.read(files[1]), "validation")
    before = files[0].stat().st_mtime_ns
    assert prepare_usgra(usgra, tmp_path / "None").stat().st_mtime_ns == before  # nothing to do


def test_folds_take_all_images_once(usgra, tmp_path):
    tests = [groups(datalist.read(prepare_usgra(usgra, tmp_path / str(k), fold=k, folds=4)), "test") for k in range(4)]
    assert sum(map(len, tests)) == len(set.union(*tests)) == 24
    with pytest.raises(TskdError, match="fold: expected 0 to 3, found 4"):
        prepare_usgra(usgra, tmp_path / "4", fold=4, folds=4)


def test_colour_stays_colour_and_masks_become_indices(tmp_path):
    source = train_test(tmp_path / "isic", 3, 255, counts=(10, 2))
    dataset_file = prepare_isic2017(source, tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert data["channels"] == 3
    assert set(np.unique(pixels(dataset_file, data["training"][0]["label"]))) == {0, 1}


def test_a_copy_in_the_other_list_is_a_leak(usgra, tmp_path):
    source = shutil.copytree(usgra, tmp_path / "usgra")
    shutil.copy(source / "train/images/0003.png", source / "train/images/0005.png")
    data = datalist.read(prepare_usgra(source, tmp_path / "within"))
    home = {entry["case"]: entry for name in ("training", "validation") for entry in data[name]}
    assert home["0003"]["group"] == home["0005"]["group"] == "0003"
    shutil.copy(source / "train/images/0003.png", source / "test/images/0021.png")
    with pytest.raises(TskdError, match=r"0003\.png \(\w+\) and .*0021\.png \(test\)"):
        prepare_usgra(source, tmp_path / "leak")
    assert not (tmp_path / "leak").exists()


def test_chase_fixed_split_and_second_observer(chase, tmp_path):
    source, disc = chase
    dataset_file = prepare_chase_db1(source, tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    found = [groups(data, name) for name in ("training", "validation", "test")]
    assert found == [{"01", "04"}, {"05"}, {"02", "08", "13"}]
    truth = np.zeros((64, 70), np.uint8)
    truth[:, 30:32] = 1
    np.testing.assert_array_equal(pixels(dataset_file, data["training"][0]["label"]), truth)
    for entry in data["validation"] + data["test"]:
        np.testing.assert_array_equal(pixels(dataset_file, entry["label"]), np.where(disc, truth, 255))
        assert ("label_2nd" in entry) == (entry in data["test"])
    second = pixels(dataset_file, data["test"][0]["label_2nd"])
    np.testing.assert_array_equal(second, np.where(disc, np.roll(truth, 1, axis=1), 255))
    assert "label_2nd" in datalist.entries(dataset_file, "test")[0]
    assert datalist.entries(dataset_file, "test")[0]["label_2nd"].startswith(str(tmp_path))


def test_chase_seeds_and_folds_keep_both_eyes_together(chase, tmp_path):
    for options in ({"seed": 3}, {"fold": 1}):
        data = datalist.read(prepare_chase_db1(chase[0], tmp_path / str(options), **options))
        assert all(len([e for e in data[name] if e["group"] == g]) == 2 for name in data if name in datalist.LISTS
                   for g in groups(data, name))  # fmt: skip
    assert prepare_chase_db1(chase[0], tmp_path / "again", seed=3).read_bytes() == (
        tmp_path / "{'seed': 3}" / "dataset.json").read_bytes()  # fmt: skip


def test_second_observers_are_checked(chase, tmp_path):
    dataset_file = prepare_chase_db1(chase[0], tmp_path / "out")
    second = dataset_file.parent / datalist.read(dataset_file)["test"][0]["label_2nd"]
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(second)
    with pytest.raises(TskdError, match=rf"labels_2nd/{second.name}: expected the size of its image \(70, 64\)"):
        checks.check(dataset_file)
    second.unlink()
    with pytest.raises(TskdError, match=rf"labels_2nd/{second.name}: expected a file, found nothing there"):
        checks.check(dataset_file)
    prepare_chase_db1(chase[0], tmp_path / "out")  # notices that a file is missing
    checks.check(dataset_file)


def test_missing_files_are_named(chase, tmp_path):
    source = shutil.copytree(chase[0], tmp_path / "chase")
    (source / "masks_2nd_observer/Image_08L.png").unlink()
    with pytest.raises(TskdError, match=r"Image_08L\.png"):
        prepare_chase_db1(source, tmp_path / "out")
    for path in source.rglob("Image_13*"):
        path.unlink()
    for path in (source / "masks_2nd_observer", source / "masks", source / "images"):
        (path / "Image_08L.png").unlink(missing_ok=True)
    for path in source.rglob("Image_08*"):
        path.unlink()
    with pytest.raises(TskdError, match="found no 08, 13"):
        prepare_chase_db1(source, tmp_path / "out")


def test_real_field_of_view(shared):
    """Measured on all 20 images: 65 to 70% of the image, as round as a disc, at most 0.6% of the vessels outside."""
    folder = shared / "data" / "chase_db1"
    for eye in ("Image_01R", "Image_06L", "Image_08L", "Image_11L"):
        inside = field_of_view(np.asarray(Image.open(folder / f"images/{eye}.jpg")))
        rows, columns = np.nonzero(inside)
        width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
        assert 0.65 < inside.mean() < 0.70
        assert abs(width / height - 1) < 0.01
        assert abs(inside.sum() / (np.pi * width * height / 4) - 1) < 0.01
        for observer in ("masks", "masks_2nd_observer"):
            vessels = np.asarray(Image.open(folder / observer / f"{eye}.png"))
            assert (vessels & ~inside).sum() < 0.006 * vessels.sum()
