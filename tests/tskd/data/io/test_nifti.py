"""Volumes: axis order, clean files."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from tskd.data.io.nifti import load_label, load_volume, to_lps, write_volume
from tskd.data.phantom.cohort import virtual_patient
from tskd.data.prepare.volume_writer import Patient, prepare_volumes
from tskd.errors import TskdError

ALL_AXES = [
    "".join(axes)
    for order in itertools.permutations(("LR", "PA", "SI"))
    for axes in itertools.product(*order)  # the 48 ways to store a volume
]
LPS_AFFINE = np.array([[-2.0, 0, 0, 30], [0, -3, 0, 40], [0, 0, 5, -50], [0, 0, 0, 1]])
HEADER = {"name": "x", "modality": "MR", "channels": 1, "labels": {"0": "background", "1": "x"}, "provenance": {}}


def patients_of(folder, *codes):
    return [Patient(code, folder / f"{code}.nii.gz", folder / f"{code}_label.nii.gz") for code in codes]


def stored_as(array, affine, axes):
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(axes)))
    return orientations.apply_orientation(array, turn), affine @ orientations.inv_ornt_aff(turn, array.shape)


@pytest.mark.parametrize("axes", ALL_AXES)
def test_every_axis_order_comes_back_as_the_same_lps_volume(axes):
    volume = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    array, affine = stored_as(volume, LPS_AFFINE, axes)
    assert "".join(nib.aff2axcodes(affine)) == axes
    back, back_affine = to_lps(array, affine)
    np.testing.assert_array_equal(back, volume)
    np.testing.assert_allclose(back_affine, LPS_AFFINE, atol=1e-9)


def test_landmark_lies_where_the_letters_say():
    """LPS: the liver (right) at small x, the back at large y, the head at large z."""
    image, affine = virtual_patient(seed=3, number=0, image_size=64, num_slices=8)[::2]
    label = virtual_patient(seed=3, number=0, image_size=64, num_slices=8)[1]
    turned, _ = to_lps(*stored_as(label, affine, "RAS"))
    liver, right, left, spleen = (np.argwhere(turned == k).mean(0) for k in (1, 2, 3, 4))
    assert liver[0] < 32 < spleen[0]
    assert right[0] < 32 < left[0]
    assert min(right[1], left[1]) > 32  # kidneys in the back
    assert min(liver[2], spleen[2]) > max(right[2], left[2])
    assert image.shape == label.shape


@pytest.mark.parametrize("axes", ["LAS", "RPI", "SRA"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_write_then_read_keeps_array_and_affine(tmp_path, axes, dtype):
    volume = np.random.default_rng(0).normal(100, 50, (4, 5, 6)).astype(dtype)
    angle = np.radians(8)
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    array, affine = stored_as(volume, tilt @ LPS_AFFINE, axes)
    write_volume(tmp_path / "a.nii.gz", array, affine)
    back, back_affine = load_volume(tmp_path / "a.nii.gz")
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)
    np.testing.assert_allclose(back_affine, affine, atol=1e-5)
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-4)
    np.testing.assert_allclose(image.get_sform(), affine, atol=1e-5)


def test_no_text_of_the_source_is_kept(tmp_path):
    image = nib.nifti1.Nifti1Image(np.ones((2, 2, 2), np.int16), np.eye(4))
    image.header["descrip"], image.header["aux_file"], image.header["db_name"] = b"Jane Doe", b"Jane Doe", b"Jane Doe"
    image.header["intent_name"] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"Jane Doe"))
    nib.nifti1.save(image, tmp_path / "in.nii")
    assert b"Jane Doe" in (tmp_path / "in.nii").read_bytes()
    write_volume(tmp_path / "out.nii.gz", *load_volume(tmp_path / "in.nii"))
    clean = nib.load(tmp_path / "out.nii.gz")
    assert b"Jane" not in clean.to_bytes()
    assert all(clean.header[key] == b"" for key in ("descrip", "aux_file", "db_name", "intent_name"))
    assert len(clean.header.extensions) == 0
    assert clean.header.get_xyzt_units()[0] == "mm"


def test_same_array_same_bytes(tmp_path):
    volume = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_volume(tmp_path / "a.nii.gz", volume, LPS_AFFINE)
    write_volume(tmp_path / "b.nii.gz", volume, LPS_AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("axes", ["LAS", "RPI", "SAR"])
def test_label_follows_the_axis_order_of_its_image(tmp_path, axes):
    label = np.random.default_rng(0).integers(0, 5, (4, 5, 6), dtype=np.uint8)
    write_volume(tmp_path / "label.nii.gz", *stored_as(label, LPS_AFFINE, axes))
    np.testing.assert_array_equal(load_label(tmp_path / "label.nii.gz", label.shape, LPS_AFFINE), label)


def test_label_that_does_not_fit_its_image_is_refused(tmp_path):
    label = np.zeros((4, 5, 6), np.uint8)
    write_volume(tmp_path / "label.nii.gz", label, LPS_AFFINE)
    with pytest.raises(TskdError, match=r"size of its image \(4, 5, 7\), found \(4, 5, 6\)"):
        load_label(tmp_path / "label.nii.gz", (4, 5, 7), LPS_AFFINE)
    moved = LPS_AFFINE.copy()
    moved[1, 3] += 12
    with pytest.raises(TskdError, match=r"12\.0 mm away"):
        load_label(tmp_path / "label.nii.gz", label.shape, moved)
    write_volume(tmp_path / "label.nii.gz", label + np.float32(0.5), LPS_AFFINE)
    with pytest.raises(TskdError, match=r"whole numbers from 0 to 255, found \[0\.5\]"):
        load_label(tmp_path / "label.nii.gz", label.shape, LPS_AFFINE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mha", b"", "expected a NIfTI file"),
        ("a.nii.gz", b"junk", "readable NIfTI"),
        ("a.nii", b"junk", "readable NIfTI"),
        ("none.nii", None, "no such file"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TskdError, match=message) as caught:
        load_volume(tmp_path / name)
    assert name in str(caught.value)


def test_colours_and_an_affine_without_an_axis_are_refused(tmp_path):
    colours = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.nifti1.save(nib.nifti1.Nifti1Image(colours, np.eye(4)), tmp_path / "colours.nii")
    with pytest.raises(TskdError, match=r"colours\.nii: expected one number a voxel"):
        load_volume(tmp_path / "colours.nii")
    image = nib.nifti1.Nifti1Image(np.zeros((2, 3, 4), np.int16), None)
    image.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nib.nifti1.save(image, tmp_path / "flat.nii")
    with pytest.raises(TskdError, match=r"flat\.nii: expected an affine with three axes"):
        load_volume(tmp_path / "flat.nii")


def test_truncated_and_four_dimensional_volumes(tmp_path):
    write_volume(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.int16), np.eye(4))
    (tmp_path / "a.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:-200])
    with pytest.raises(TskdError, match="Copy the file again"):
        load_volume(tmp_path / "a.nii.gz")
    nib.nifti1.save(nib.nifti1.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(TskdError, match="3 dimensions"):
        load_volume(tmp_path / "b.nii")
    nib.nifti1.save(nib.nifti1.Nifti1Image(np.zeros((2, 2, 2, 1), np.int16), np.eye(4)), tmp_path / "c.nii")
    assert load_volume(tmp_path / "c.nii")[0].shape == (2, 2, 2)


def test_sagittal_volumes_are_cut_with_a_warning(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for code, spacing in (("thick", [4.0, 0.7, 0.7]), ("axial", [0.7, 0.7, 4.0])):
        volume = rng.integers(0, 99, (4, 20, 20)).astype(np.int16)
        write_volume(tmp_path / f"{code}.nii.gz", volume, np.diag([*spacing, 1.0]))
        write_volume(tmp_path / f"{code}_label.nii.gz", (volume % 2).astype(np.uint8), np.diag([*spacing, 1.0]))
    split = {"training": ["thick", "axial"], "validation": [], "test": []}
    prepare_volumes(tmp_path / "data", patients_of(tmp_path, "thick", "axial"), split, HEADER)
    assert "1 sagittal or coronal volumes: thick (4 x 0.7 x 0.7 mm)" in caplog.text


def test_a_scan_under_two_codes_is_refused_before_anything_is_written(tmp_path):
    volume = np.random.default_rng(0).integers(0, 99, (9, 8, 7)).astype(np.int16)
    for code in ("a", "b", "c"):  # b is a, stored in another axis order and without compression
        array, affine = stored_as(volume + (code == "c"), LPS_AFFINE, "SRA" if code == "b" else "LPS")
        write_volume(tmp_path / f"{code}.nii.gz", array, affine)
        write_volume(tmp_path / f"{code}_label.nii.gz", (array % 2).astype(np.uint8), affine)
    split = {"training": ["a", "c"], "validation": [], "test": ["b"]}
    with pytest.raises(TskdError, match=r"found the same voxels as a and b\. Remove one"):
        prepare_volumes(tmp_path / "data", patients_of(tmp_path, "a", "b", "c"), split, HEADER)
    assert not (tmp_path / "data").exists()
    prepare_volumes(tmp_path / "data", patients_of(tmp_path, "a", "c"), {**split, "test": []}, HEADER)


def test_a_volume_that_does_not_say_how_it_lies_is_named(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for code in ("placed", "adrift"):
        image = nib.nifti1.Nifti1Image(rng.integers(0, 99, (9, 8, 7)).astype(np.int16), None)
        image.header["pixdim"][1:4] = 2, 3, 5
        if code == "placed":
            image.header.set_sform(LPS_AFFINE, code=1)
        nib.nifti1.save(image, tmp_path / f"{code}.nii.gz")
        label = nib.nifti1.Nifti1Image((np.asarray(image.dataobj) % 2).astype(np.uint8), None, image.header)
        nib.nifti1.save(label, tmp_path / f"{code}_label.nii.gz")
    assert nib.orientations.aff2axcodes(load_volume(tmp_path / "adrift.nii.gz")[1]) == ("L", "A", "S")
    split = {"training": ["placed", "adrift"], "validation": [], "test": []}
    prepare_volumes(tmp_path / "data", patients_of(tmp_path, "placed", "adrift"), split, HEADER)
    assert "1 volumes do not say how they lie" in caplog.text
    assert caplog.text.rstrip().endswith("right and left organs: adrift")
