"""The virtual cohort: reproducible, both file kinds, plausible anatomy."""

import json

import numpy as np
import pytest

from tskd.data import datalist
from tskd.data.io.intensity import PERCENTILES
from tskd.data.io.nifti import load_volume, to_lps
from tskd.data.phantom.anatomy import smooth_field
from tskd.data.phantom.cohort import prepare_phantom, virtual_patient
from tskd.errors import TskdError

SMALL = {"num_patients": 4, "image_size": 32, "num_slices": 4, "num_validation": 1, "num_test": 1}


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        prepare_phantom(tmp_path / name, seed=seed, **SMALL)
    first, again, other = (files(tmp_path / name) for name in "abc")
    assert first == again
    volumes = [name for name in first if name.startswith("raw") and name in other]
    assert len(volumes) > 4
    assert all(first[name] != other[name] for name in volumes)


def test_split_is_by_patient_and_everyone_is_used(cohort):
    data = datalist.read(cohort)
    groups = {name: {entry["group"] for entry in data[name]} for name in ("training", "validation", "test")}
    assert [len(found) for found in groups.values()] == [3, 1, 2]
    assert len(set.union(*groups.values())) == 6
    assert len(data["training"]) == 3 * 6
    assert not data["unlabelled"]
    assert str(cohort.parent.parent) not in json.dumps(data)


def test_half_of_the_patients_are_dicom_and_axis_orders_differ(cohort):
    raw = cohort.parent / "raw"
    assert sorted(path.name for path in raw.iterdir() if path.is_dir()) == [f"phantom_{n:03d}" for n in (0, 2, 4)]
    import nibabel as nib

    codes = {nib.aff2axcodes(load_volume(path)[1]) for path in raw.glob("*.nii.gz")}
    assert len(codes) > 1


@pytest.mark.parametrize("number", range(4))
def test_files_hold_the_virtual_patient(cohort, number):
    """Through DICOM or NIfTI, any axis order, and our reader: bit by bit the array that was computed."""
    image, label, affine = virtual_patient(0, number, 48, 6)
    raw = cohort.parent / "raw"
    source = raw / f"phantom_{number:03d}" if number % 2 == 0 else raw / f"phantom_{number:03d}.nii.gz"
    for path, expected in ((source, image), (raw / f"phantom_{number:03d}_label.nii.gz", label)):
        found, found_affine = to_lps(*load_volume(path))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found_affine, affine, atol=1e-3)


def test_anatomy_and_contrast_are_plausible():
    """Volumes in litres, sides, and T2 contrast (spleen and kidneys brighter than liver), as in CHAOS."""
    volumes = []
    for number in range(6):
        image, label, affine = virtual_patient(seed=4, number=number, image_size=64, num_slices=12)
        voxel = abs(np.linalg.det(affine)) / 1e6
        volumes.append([(label == k).sum() * voxel for k in (1, 2, 3, 4)])
        medians = [np.median(image[label == k]) for k in (1, 2, 3, 4)]
        assert min(medians[1:]) > medians[0]
        x = [np.argwhere(label == k)[:, 0].mean() for k in (1, 2, 3, 4)]
        assert max(x[0], x[1]) < 32 < min(x[2], x[3])
    low, high = np.min(volumes, axis=0), np.max(volumes, axis=0)
    assert (low > [0.9, 0.08, 0.08, 0.06]).all()
    assert (high < [2.8, 0.4, 0.4, 0.6]).all()
    assert (high / low > 1.15).all()


def test_intensity_alone_does_not_solve_it():
    """Even the best window of grey values, chosen with the label at hand, overlaps poorly with each organ."""
    scores = np.zeros((6, 4))
    for number, organ in np.ndindex(6, 4):
        image, label, _ = virtual_patient(seed=0, number=number, image_size=48, num_slices=8)
        grey = np.digitize(PERCENTILES.scale(image), np.linspace(0, 1, 21))
        inside = np.cumsum(np.bincount(grey[label == organ + 1], minlength=23))
        all_of = np.cumsum(np.bincount(grey.ravel(), minlength=23))
        dice = 2 * np.subtract.outer(inside, inside) / (np.abs(np.subtract.outer(all_of, all_of)) + inside[-1])
        scores[number, organ] = np.tril(dice).max()
    assert (scores.mean(axis=0) < 0.7).all()


def test_smooth_field_has_unit_variance_and_is_smooth():
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field(rng, (40, 30, 10), np.array([2.0, 2.0, 8.0]), 20) for _ in range(60)])
    assert abs(fields.std() - 1) < 0.1
    assert np.abs(np.diff(fields, axis=1)).mean() < 0.15


@pytest.mark.parametrize(("change", "message"), [({"num_patients": 2}, "some remain"), ({"num_slices": 1}, "at least")])
def test_numbers_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(TskdError, match=message):
        prepare_phantom(tmp_path / "x", **{**SMALL, **change})
    assert not (tmp_path / "x").exists()
