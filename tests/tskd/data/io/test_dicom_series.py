"""DICOM series: same volume as NIfTI and as MONAI reads it; irregular series are refused."""

import shutil
from typing import Any

import numpy as np
import pydicom
import pytest

from tskd.data.io.dicom_series import read_series
from tskd.data.io.nifti import load_volume, to_lps, write_volume
from tskd.data.phantom.cohort import virtual_patient
from tskd.data.phantom.dicom_writer import write_series
from tskd.errors import TskdError


@pytest.fixture
def patient():
    return virtual_patient(seed=1, number=0, image_size=32, num_slices=6)


@pytest.fixture
def series(tmp_path, patient):
    image, _, affine = patient
    write_series(tmp_path / "series", image, affine, "PHANTOM-000", "test", file_order=[3, 0, 5, 1, 4, 2])
    return tmp_path / "series"


def flip_y(size):
    return np.array([[1, 0, 0, 0], [0, -1, 0, size - 1], [0, 0, 1, 0], [0, 0, 0, 1]])


def edit(path, **tags):
    data = pydicom.dcmread(path)
    for tag, value in tags.items():
        setattr(data, tag, value)
    data.save_as(path)


def test_series_and_nifti_give_the_same_lps_volume(series, patient, tmp_path):
    image, _, affine = patient
    write_volume(tmp_path / "same.nii.gz", image[:, ::-1], affine @ flip_y(image.shape[1]))
    from_dicom, dicom_affine = to_lps(*load_volume(series))
    from_nifti, nifti_affine = to_lps(*load_volume(tmp_path / "same.nii.gz"))
    assert from_dicom.dtype == from_nifti.dtype == np.int16
    np.testing.assert_array_equal(from_dicom, from_nifti)
    np.testing.assert_array_equal(from_dicom, image)
    np.testing.assert_allclose(dicom_affine, nifti_affine, atol=1e-3)


@pytest.mark.parametrize("turn", [(1, 0), (0, 2), (1, 2)])
def test_oblique_and_reordered_series_keep_their_place(tmp_path, turn):
    """A series in any rotation: every voxel at the place that its affine says."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation[:, 2] *= np.linalg.det(rotation)
    rotation = np.roll(rotation, turn, axis=(0, 1))
    rotation[:, 2] *= np.sign(np.linalg.det(rotation))
    affine = np.eye(4)
    affine[:3, :3] = rotation * [1.5, 2.5, 4.0]
    affine[:3, 3] = [10, -20, 30]
    volume = rng.integers(0, 1000, (5, 6, 7)).astype(np.int16)
    write_series(tmp_path / "s", volume, affine, "PHANTOM-001", "oblique")
    array, found = read_series(tmp_path / "s")
    np.testing.assert_array_equal(array, volume)
    np.testing.assert_allclose(found, affine, atol=1e-5)


def test_monai_reads_the_same_series(series):
    from monai.data import PydicomReader
    from monai.transforms import LoadImage, Orientation

    ours, affine = to_lps(*load_volume(series))
    read = LoadImage(PydicomReader, image_only=True, ensure_channel_first=True)(series)
    theirs: Any = Orientation(axcodes="LPS")(read)
    np.testing.assert_array_equal(theirs[0].numpy(), ours)
    np.testing.assert_allclose(theirs.affine.numpy(), affine, atol=1e-3)


def test_rescale_slope_and_intercept(series, patient):
    for path in series.iterdir():
        edit(path, RescaleSlope="1", RescaleIntercept="-1024")
    array, _ = load_volume(series)
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array, patient[0] - 1024)
    for path in series.iterdir():
        edit(path, RescaleSlope="0.5")
    array, _ = load_volume(series)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, patient[0] * 0.5 - 1024)


def test_slices_are_sorted_by_position_not_by_number_or_name(series, patient):
    for number, path in zip((4, 1, 6, 2, 5, 3), sorted(series.iterdir()), strict=True):
        edit(path, InstanceNumber=number)
    np.testing.assert_array_equal(load_volume(series)[0], patient[0])


def test_other_files_are_passed_over(series, patient):
    (series / "notes.txt").write_text("hello")
    (series / "folder").mkdir()
    np.testing.assert_array_equal(load_volume(series)[0], patient[0])


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_belong_to_the_series(series, patient, implicit):
    expected = read_series(series)
    for path in sorted(series.glob("*.dcm"))[-2:]:
        data = pydicom.dcmread(path)
        bare = pydicom.Dataset({element.tag: element for element in data})
        bare.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    for got, kept in zip(read_series(series), expected, strict=True):
        np.testing.assert_array_equal(got, kept)


def test_series_names_nobody(series):
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        assert data.PatientID == "PHANTOM-000"
        assert not any(data.get(tag) for tag in ("PatientName", "StudyDate", "PatientBirthDate", "InstitutionName"))
        assert data.SOPInstanceUID.startswith("2.25.")
        assert data.SOPInstanceUID.is_valid


IRREGULAR = {
    "missing slice": (lambda s: (s / "IM0004.dcm").unlink(), "even distance"),
    "repeated slice": (
        lambda s: (shutil.copy(s / "IM0001.dcm", s / "z.dcm"), edit(s / "z.dcm", SOPInstanceUID="2.25.1")),
        "even distance",
    ),
    "two series": (lambda s: edit(s / "IM0002.dcm", SeriesInstanceUID="2.25.1"), "same SeriesInstanceUID"),
    "two patients": (
        lambda s: edit(s / "IM0002.dcm", PatientID="PHANTOM-001"),
        "one patient under one SeriesInstanceUID",
    ),
    "two spacings": (lambda s: edit(s / "IM0002.dcm", PixelSpacing=[1, 1]), "same PixelSpacing"),
    "two orientations": (
        lambda s: edit(s / "IM0002.dcm", ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        "same ImageOrientationPatient",
    ),
    "no position": (lambda s: edit(s / "IM0002.dcm", ImagePositionPatient=None), "no ImagePositionPatient"),
    "inverted": (lambda s: edit(s / "IM0002.dcm", PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1"),
    "several frames": (lambda s: edit(s / "IM0002.dcm", NumberOfFrames=2), "2 frames"),
    "short pixels": (lambda s: edit(s / "IM0002.dcm", PixelData=b"\0\0"), "readable pixels"),
    "one slice": (lambda s: [path.unlink() for path in list(s.iterdir())[1:]], "at least 2 slices, found 1"),
    "no slice": (lambda s: [path.write_text("x") for path in s.iterdir()], "at least 2 slices, found 0"),
}


@pytest.mark.parametrize("name", IRREGULAR)
def test_irregular_series_are_refused(series, name):
    damage, message = IRREGULAR[name]
    damage(series)
    with pytest.raises(TskdError, match=message) as caught:
        load_volume(series)
    assert str(series) in str(caught.value)


@pytest.mark.parametrize(("gap", "decimals"), [(0.625, 1), (0.625, 2), (1.25, 1), (0.9766, 2)])
def test_positions_that_were_rounded_are_even_and_a_missing_slice_is_still_missed(tmp_path, gap, decimals):
    affine = np.diag([1.0, 1.0, gap, 1.0])
    write_series(tmp_path / "s", np.zeros((4, 5, 60), np.int16), affine, "PHANTOM-001", "thin")
    for path in (tmp_path / "s").iterdir():
        position = [round(float(v), decimals) for v in pydicom.dcmread(path).ImagePositionPatient]
        edit(path, ImagePositionPatient=position)
    assert load_volume(tmp_path / "s")[1][2, 2] == pytest.approx(gap, abs=0.1 / 59 + 1e-6)
    sorted((tmp_path / "s").iterdir())[30].unlink()
    with pytest.raises(TskdError, match="even distance"):
        load_volume(tmp_path / "s")


def test_tilted_gantry_is_refused(tmp_path, patient):
    image, _, affine = patient
    write_series(tmp_path / "s", image, affine, "PHANTOM-000", "tilt")
    for path in (tmp_path / "s").iterdir():
        x, y, z = (float(v) for v in pydicom.dcmread(path).ImagePositionPatient)
        edit(path, ImagePositionPatient=[x, y + 0.2 * (z + 80), z])
    with pytest.raises(TskdError, match="tilted gantry"):
        load_volume(tmp_path / "s")


def test_real_ct_series(shared):
    """CHAOS CT, every second slice: 39 slices 4 mm apart; liver soft tissue and air at their Hounsfield values."""
    folder = shared / "data" / "chaos_ct_sample" / "images"
    array, affine = load_volume(folder)
    assert array.dtype == np.int16
    assert array.shape == (512, 512, 39)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [0.7265625, 0.7265625, 4.0], atol=1e-6)
    assert array.min() == -1000
    first = pydicom.dcmread(folder / "i0000_0000b.dcm")  # the highest slice: the last of the volume
    np.testing.assert_array_equal(array[:, :, -1].T, first.pixel_array.astype(int) - 1000)
    world = affine @ [0, 0, 38, 1]
    np.testing.assert_allclose(world[:3] * [-1, -1, 1], first.ImagePositionPatient, atol=1e-6)
