"""A SEG object says what the mask says, voxel by voxel in three readers, and names the archive's own images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tskd.data.io.dicom_series import read_series, series_files
from tskd.predict.dicom_seg import write_seg
from tskd.predict.organ_codes import Code
from tskd.predict.shipped_bundle import read_bundle

pytestmark = pytest.mark.bundle

highdicom = pytest.importorskip("highdicom", reason="needs highdicom, an optional dependency")


def _mask(shape: tuple[int, ...]) -> np.ndarray:
    """A landmark in one corner, and one structure that is on a single slice."""
    mask = np.zeros(shape, np.uint8)
    mask[2:9, 3:6, :3] = 1
    mask[30:34, 20:35, 4] = 3
    return mask


def _write(tmp_path: Path, series: Path, bundle: Path, mask: np.ndarray) -> Path:
    write_seg(tmp_path / "a.dcm", mask, sorted(series.iterdir()), read_bundle(bundle))
    return tmp_path / "a.dcm"


def test_it_is_read_back_voxel_by_voxel(tmp_path: Path, series: Path, volumes_bundle: Path) -> None:
    array, affine = read_series(series)
    mask = _mask(array.shape)
    path = _write(tmp_path, series, volumes_bundle, mask)
    seg = highdicom.seg.segread(path)
    assert seg.SegmentationType == "BINARY"
    sources = series_files(series)
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in sources]
    pixels = seg.get_pixels_by_source_instance(uids, combine_segments=True, ignore_spatial_locations=True)
    np.testing.assert_array_equal(pixels.transpose(2, 1, 0), mask)
    placed = np.zeros_like(mask)  # by pydicom: each frame where its position says
    data = pydicom.dcmread(path)
    back = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    for frame, item in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        x, y, z = np.rint(back @ [*item.PlanePositionSequence[0].ImagePositionPatient, 1])[:3].astype(int)
        assert (x, y) == (0, 0)
        placed[:, :, z][frame.T > 0] = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID == uids[z]
    np.testing.assert_array_equal(placed, mask)
    itk = pytest.importorskip("SimpleITK", reason="needs SimpleITK, an optional dependency")
    np.testing.assert_array_equal(itk.GetArrayFromImage(itk.ReadImage(str(path))) > 0, frames > 0)


def test_segments_are_named_and_coded(tmp_path: Path, series: Path, volumes_bundle: Path) -> None:
    array, _ = read_series(series)
    seg = highdicom.seg.segread(_write(tmp_path, series, volumes_bundle, _mask(array.shape)))
    assert seg.number_of_segments == 3  # the empty one is described, too
    described = [seg.get_segment_description(number) for number in seg.segment_numbers]
    assert [item.segment_label for item in described] == ["liver", "right kidney", "left kidney"]
    assert [item.segmented_property_type.value for item in described] == ["10200004", "9846003", "18639004"]
    algorithm = described[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmSource, algorithm.AlgorithmVersion) == ("tskd", read_bundle(volumes_bundle).version)
    assert pydicom.dcmread(tmp_path / "a.dcm").PatientID == "P1"


def test_a_mask_with_nothing_in_it(tmp_path: Path, series: Path, volumes_bundle: Path) -> None:
    array, _ = read_series(series)
    seg = highdicom.seg.segread(_write(tmp_path, series, volumes_bundle, np.zeros(array.shape, np.uint8)))
    assert seg.number_of_segments == 3
    assert not seg.pixel_array.any()


def test_own_codes_go_first(tmp_path: Path, series: Path, volumes_bundle: Path) -> None:
    array, _ = read_series(series)
    user_codes = {"liver": Code("1234", "99HOSPITAL", "Our liver")}
    write_seg(tmp_path / "b.dcm", _mask(array.shape), sorted(series.iterdir()), read_bundle(volumes_bundle), user_codes)
    seg = highdicom.seg.segread(tmp_path / "b.dcm")
    assert seg.get_segment_description(1).segmented_property_type.scheme_designator == "99HOSPITAL"


@pytest.mark.parametrize(
    ("charset", "patient"),
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "Иванов^Иван"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_names_are_written_whatever_letters_the_source_has(
    charset: str | list[str] | None, patient: str, tmp_path: Path, series: Path, volumes_bundle: Path
) -> None:
    """Structures whose letters the source's character set lacks, and a patient whose name has them."""
    (tmp_path / "series").mkdir()
    for file in series.iterdir():
        source = pydicom.dcmread(file)
        source.decode()
        if charset is not None:
            source.SpecificCharacterSet = charset
        elif "SpecificCharacterSet" in source:
            del source.SpecificCharacterSet
        source.PatientName = patient
        source.save_as(tmp_path / "series" / file.name)
    labels = {0: "background", 1: "左肾", 2: "右肾", 3: "почка\\ü"}
    bundle = replace(read_bundle(volumes_bundle), labels=labels)
    array, _ = read_series(tmp_path / "series")
    write_seg(tmp_path / "a.dcm", _mask(array.shape), sorted((tmp_path / "series").iterdir()), bundle)
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    described = [seg.get_segment_description(number) for number in seg.segment_numbers]
    assert [item.segment_label for item in described] == ["左肾", "右肾", "почка/ü"]
    assert [item.segmented_property_type.meaning for item in described] == ["左肾", "右肾", "почка/ü"]
    assert str(pydicom.dcmread(tmp_path / "a.dcm").PatientName) == patient
