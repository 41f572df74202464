"""CHAOS MR: fixed and drawn splits, real files."""

import json
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from tskd.data import checks, datalist
from tskd.data.io.nifti import load_volume, to_lps, write_volume
from tskd.data.phantom.cohort import virtual_patient
from tskd.data.phantom.dicom_writer import write_series
from tskd.data.public.chaos import prepare_chaos_mr
from tskd.errors import TskdError

SUBJECTS = ["1", "2", "5", "8", "10", "13", "21", "36", "39"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Virtual patients in the folder layout of CHAOS."""
    folder = tmp_path_factory.mktemp("chaos")
    for number, subject in enumerate(SUBJECTS):
        image, label, affine = virtual_patient(0, number, image_size=24, num_slices=3)
        write_volume(folder / "images" / f"image_{subject}.nii.gz", image, affine)
        write_volume(folder / "masks" / f"label_{subject}.nii.gz", label, affine)
    return folder


def split_of(dataset_file):
    data = datalist.read(dataset_file)
    return {name: sorted({entry["group"] for entry in data[name]}) for name in ("training", "validation", "test")}


def test_fixed_split(source, tmp_path):
    dataset_file = prepare_chaos_mr(source, tmp_path / "out")
    checks.check(dataset_file)
    split = split_of(dataset_file)
    assert split == {"training": ["1", "10", "2", "39"], "validation": ["8"], "test": ["13", "21", "36", "5"]}
    data = datalist.read(dataset_file)
    assert len(data["training"]) == 4 * 3
    assert data["provenance"]["licence"] == "CC BY-NC-SA 4.0"
    assert str(source) not in json.dumps(data)


@pytest.fixture
def archive(source, tmp_path):
    """The same patients as the archive has them: a DICOM file and a PNG of greys for each slice."""
    folder = tmp_path / "CHAOS_Train_Sets"
    for subject in SUBJECTS:
        image, affine = load_volume(source / "images" / f"image_{subject}.nii.gz")
        label, _ = load_volume(source / "masks" / f"label_{subject}.nii.gz")
        place = folder / "Train_Sets" / "MR" / subject / "T2SPIR"
        order = [2, 0, 1]  # file number of each slice
        write_series(place / "DICOM_anon", image, affine, subject, subject, file_order=order)
        (place / "Ground").mkdir()
        for position, number in enumerate(order):
            grey = np.array([0, 63, 126, 189, 252], np.uint8)[label[..., position]]
            Image.fromarray(grey.T).save(place / "Ground" / f"IM{number:04d}.png")
    (folder / "Train_Sets" / "CT" / "1" / "DICOM_anon").mkdir(parents=True)
    return folder


def test_the_archive_gives_what_its_volumes_give(source, archive, tmp_path):
    expected, found = (prepare_chaos_mr(folder, tmp_path / f"of_{folder.name}") for folder in (source, archive))
    before, after = datalist.read(expected), datalist.read(found)
    assert {name: after[name] for name in datalist.LISTS} == {name: before[name] for name in datalist.LISTS}
    for entry in [*after["training"], *after["validation"], *after["test"]]:
        for key in ("image", "label"):
            one, other = (file.parent / entry[key] for file in (expected, found))
            if one.suffix == ".png":
                np.testing.assert_array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))
            else:
                (voxels, affine), (same, place) = (to_lps(*load_volume(path)) for path in (one, other))
                np.testing.assert_array_equal(voxels, same)
                np.testing.assert_allclose(affine, place, atol=1e-3)
    assert prepare_chaos_mr(archive, found.parent) == found


def test_masks_of_the_archive_that_do_not_fit_are_named(archive, tmp_path):
    place = archive / "Train_Sets" / "MR" / "8" / "T2SPIR" / "Ground"
    grey = np.asarray(Image.open(place / "IM0001.png")).copy()
    grey[0, 0] = 100
    Image.fromarray(grey).save(place / "IM0001.png")
    with pytest.raises(TskdError, match=r"Ground/IM0001\.png: expected the greys .* and 0, found \[100\]"):
        prepare_chaos_mr(archive, tmp_path / "grey")
    Image.fromarray(grey[:-1]).save(place / "IM0001.png")
    with pytest.raises(TskdError, match=r"IM0001\.png: expected the size of its image \(24, 24\), found \(24, 23\)"):
        prepare_chaos_mr(archive, tmp_path / "size")
    (place / "IM0001.png").unlink()
    with pytest.raises(TskdError, match=r"Ground: expected a mask for each DICOM file, found no IM0001\.png"):
        prepare_chaos_mr(archive, tmp_path / "none")


def test_seeds_draw_other_splits_of_the_same_sizes(source, tmp_path):
    splits = [split_of(prepare_chaos_mr(source, tmp_path / str(seed), seed=seed)) for seed in (0, 1)]
    assert splits[0] != splits[1]
    for split in splits:
        assert [len(split[name]) for name in ("training", "validation", "test")] == [4, 1, 4]
        assert sorted(chain(*split.values())) == sorted(SUBJECTS)


def test_folds_test_every_subject_once(source, tmp_path):
    splits = [split_of(prepare_chaos_mr(source, tmp_path / str(fold), fold=fold, folds=3)) for fold in range(3)]
    assert sorted(chain(*(split["test"] for split in splits))) == sorted(SUBJECTS)
    assert all(len(split["validation"]) == 1 for split in splits)
    with pytest.raises(TskdError, match="fold: expected 0 to 2, found 3"):
        prepare_chaos_mr(source, tmp_path / "x", fold=3, folds=3)


def test_incomplete_source_is_named(source, tmp_path):
    with pytest.raises(TskdError, match="found none"):
        prepare_chaos_mr(source / "masks", tmp_path / "out")
    for subject in ("5", "7"):
        image, _, affine = virtual_patient(0, 0, image_size=24, num_slices=3)
        write_volume(tmp_path / "part" / "images" / f"image_{subject}.nii.gz", image, affine)
    with pytest.raises(TskdError, match=r"label_5\.nii\.gz, .*label_7\.nii\.gz"):
        prepare_chaos_mr(tmp_path / "part", tmp_path / "out")
    for subject in ("5", "7"):
        write_volume(tmp_path / "part" / "masks" / f"label_{subject}.nii.gz", (image > 90).astype(np.uint8), affine)
    with pytest.raises(TskdError, match="found no 8, 13, 21, 36"):
        prepare_chaos_mr(tmp_path / "part", tmp_path / "out")


def test_real_subjects_have_their_liver_on_the_right(shared):
    """The axis order of the real files, checked against anatomy."""
    folder = shared / "data" / "chaos_mr_t2spir" / "masks"
    for subject in ("1", "36"):
        label, _ = to_lps(*load_volume(folder / f"label_{subject}.nii.gz"))
        liver, right, left, spleen = (np.argwhere(label == k).mean(0) for k in (1, 2, 3, 4))
        assert liver[0] < 128 < spleen[0]
        assert right[0] < 128 < left[0]
        assert liver[1] < right[1]
        assert liver[2] > right[2]


def test_real_subjects_pass_the_check_without_their_blank_slices(shared, tmp_path):
    """Three real subjects whose last slice is all zero: the slices of the training subject are all but that one."""
    real, slices = shared / "data" / "chaos_mr_t2spir", {"1": 37, "2": 31, "37": 38}
    for kind, name in (("images", "image"), ("masks", "label")):
        (tmp_path / "in" / kind).mkdir(parents=True)
        for subject in slices:
            (tmp_path / "in" / kind / f"{name}_{subject}.nii.gz").symlink_to(real / kind / f"{name}_{subject}.nii.gz")
    dataset_file = prepare_chaos_mr(tmp_path / "in", tmp_path / "out", fold=0, folds=3)
    checks.check(dataset_file)
    (subject,) = split_of(dataset_file)["training"]
    assert len(datalist.entries(dataset_file, "labelled")) == slices[subject] - 1
