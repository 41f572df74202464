"""CHAOS CT: one patient in each encoding, masks in the order of the names; the real patient's liver lies right."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.tskd.data.dicom_encodings import ENCODINGS, INTERCEPT, encode
from tskd.data import checks, datalist
from tskd.data.io.dicom_series import read_series, series_files
from tskd.data.io.nifti import load_volume, to_lps
from tskd.data.phantom.cohort import virtual_patient
from tskd.data.phantom.dicom_writer import write_series
from tskd.data.public.chaos_ct import LIVER, prepare_chaos_ct
from tskd.data.public.slice_masks import by_order, label_volume
from tskd.errors import TskdError

ORDER = [2, 0, 3, 1]  # number in the file name of each slice


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Virtual patients as the archive has them, their stored values above the intercept."""
    folder = tmp_path_factory.mktemp("chaos_ct") / "Train_Sets" / "CT"
    for number, encoding in enumerate(ENCODINGS):
        image, label, affine = virtual_patient(0, number, image_size=24, num_slices=4)
        place = folder / str(number + 1)
        write_series(place / "DICOM_anon", np.clip(image + 900, 0, 4095), affine, "", str(number), ORDER)
        for path in sorted((place / "DICOM_anon").iterdir()):
            path.rename(path.with_name(f"i{path.stem[2:]},0000b.dcm"))
        encode(place / "DICOM_anon", encoding)
        (place / "Ground").mkdir()
        for position, name in enumerate(ORDER):
            white = np.where(label[..., position] == 1, 255, 0).astype(np.uint8)
            Image.fromarray(white.T).convert("1").save(place / "Ground" / f"liver_GT_{name:03d}.png")
    return folder.parents[1]


def expected(number):
    image, label, affine = virtual_patient(0, number, image_size=24, num_slices=4)
    return to_lps(np.clip(image + 900, 0, 4095) + INTERCEPT, affine)[0], to_lps((label == 1).astype(int), affine)[0]


@pytest.mark.parametrize("number", range(len(ENCODINGS)), ids=ENCODINGS)
def test_each_encoding_holds_the_same_hounsfield_units(source, number):
    place = source / "Train_Sets" / "CT" / str(number + 1)
    volume, affine = read_series(place / "DICOM_anon")
    np.testing.assert_array_equal(to_lps(volume, affine)[0], expected(number)[0])
    assert len(series_files(place / "DICOM_anon")) == 4


def test_prepared_volumes_are_those_of_the_patients(source, tmp_path):
    dataset_file = prepare_chaos_ct(source, tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert [len({e["group"] for e in data[name]}) for name in ("training", "validation", "test")] == [4, 1, 1]
    assert data["intensity"] == {"window": [-160.0, 240.0]}
    assert data["provenance"]["licence"] == "CC BY-NC-SA 4.0"
    for entry in data["validation"] + data["test"]:
        image, label = expected(int(entry["group"]) - 1)
        (voxels, place), (truth, _) = (load_volume(dataset_file.parent / entry[key]) for key in ("image", "label"))
        np.testing.assert_array_equal(to_lps(voxels, place)[0], image)
        np.testing.assert_array_equal(to_lps(truth, place)[0], label)
    entry = data["training"][0]
    image, label = expected(int(entry["group"]) - 1)
    k = int(entry["case"][-3:])
    with Image.open(dataset_file.parent / entry["label"]) as mask:
        np.testing.assert_array_equal(np.asarray(mask).T, label[..., k])
    with Image.open(dataset_file.parent / entry["image"]) as slice_k:
        scaled = np.clip((image[..., k] + 160) / 400, 0, 1) * 255
        np.testing.assert_allclose(np.asarray(slice_k).T, scaled, atol=0.51)


def test_folds_and_incomplete_archives(source, tmp_path):
    tests = [
        {e["group"] for e in datalist.read(prepare_chaos_ct(source, tmp_path / str(k), fold=k))["test"]}
        for k in range(3)
    ]
    assert sorted(len(test) for test in tests) == [2, 2, 2]
    assert len(set.union(*tests)) == 6
    copy = shutil.copytree(source, tmp_path / "copy")
    (copy / "Train_Sets/CT/2/Ground/liver_GT_003.png").unlink()
    with pytest.raises(TskdError, match=r"2/Ground: expected a mask for each of the 4 slices, found 3"):
        prepare_chaos_ct(copy, tmp_path / "x")
    with pytest.raises(TskdError, match="Give the folder CT of the training archive"):
        prepare_chaos_ct(tmp_path / "x", tmp_path / "y")


def test_the_real_patient_has_its_liver_on_the_right(shared, tmp_path):
    """Every second slice of one patient (implicit little endian, intercept -1000), against anatomy."""
    folder = shared / "data" / "chaos_ct_sample"
    files = by_order(folder / "images", folder / "masks")
    label, affine = load_volume(label_volume(folder / "images", files, LIVER, tmp_path / "liver.nii.gz"))
    label, _ = to_lps(label, affine)
    image, _ = to_lps(*load_volume(folder / "images"))
    inside = image[label > 0]
    assert 40 < np.median(inside) < 160  # Hounsfield units of liver with contrast agent
    assert np.argwhere(label).mean(0)[0] < image.shape[0] / 2
