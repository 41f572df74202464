"""DICOM SEG as a label: frames to slices by position, in any order and orientation; what has no voxels is refused."""

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from nibabel import affines, eulerangles

from tskd import data
from tskd.cli import main
from tskd.data import load_label, load_volume, virtual_patient
from tskd.data.phantom.dicom_writer import write_series
from tskd.errors import TskdError
from tskd.predict.dicom_seg import write_seg
from tskd.predict.shipped_bundle import ShippedBundle

NAMES = {0: "background", 1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}


def write_pair(folder: Path, patient: str, number: int = 0) -> np.ndarray:
    """An oblique DICOM series and its SEG, images/PATIENT and masks/PATIENT.dcm; the mask is returned."""
    image, label, affine = virtual_patient(seed=5, number=number, image_size=40, num_slices=5)
    tilted = affines.from_matvec(eulerangles.euler2mat(z=0.1, y=0.05, x=-0.08), [3.0, -8.0, 11.0]) @ affine
    series = folder / "images" / patient
    write_series(series, image[4:38].copy(), tilted, patient, patient, file_order=[3, 0, 4, 1, 2])
    mask = label[4:38].astype(np.uint8)
    mask[:, :, 1] = 0  # an empty slice has no frame
    bundle = ShippedBundle(folder, "toy", "0.1.0", NAMES, 1, False, 32, {})
    (folder / "masks").mkdir(exist_ok=True)
    write_seg(folder / "masks" / f"{patient}.dcm", mask, sorted(series.iterdir()), bundle)
    return mask


@pytest.mark.parametrize("change", ["as written", "frames reversed", "planes turned"])
def test_each_frame_goes_to_the_slice_of_its_position(tmp_path: Path, change: str) -> None:
    mask = write_pair(tmp_path, "p")
    image, affine = load_volume(tmp_path / "images/p")
    path = tmp_path / "masks/p.dcm"
    seg = pydicom.dcmread(path)
    frames = seg.pixel_array
    assert len(frames) < 4 * 5
    if change == "frames reversed":
        seg.PerFrameFunctionalGroupsSequence = list(seg.PerFrameFunctionalGroupsSequence)[::-1]
        frames = frames[::-1]
    elif change == "planes turned":  # the same plane from its other end
        shared = seg.SharedFunctionalGroupsSequence[0]
        directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        height, width = frames.shape[1:]
        rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
        shift = directions[:3] * columns * (width - 1) + directions[3:] * rows * (height - 1)
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [f"{-value:.9f}" for value in directions]
        for item in seg.PerFrameFunctionalGroupsSequence:
            plane = item.PlanePositionSequence[0]
            plane.ImagePositionPatient = [f"{v:.6f}" for v in np.array(plane.ImagePositionPatient, float) + shift]
        frames = frames[:, ::-1, ::-1]
    seg.PixelData = np.packbits(frames.astype(bool).ravel(), bitorder="little").tobytes()
    seg.save_as(path)
    np.testing.assert_array_equal(load_label(path, image.shape, affine), mask)


def test_fractions_and_label_maps_are_read(tmp_path: Path) -> None:
    mask = write_pair(tmp_path, "p")
    image, affine = load_volume(tmp_path / "images/p")
    seg = highdicom.seg.segread(tmp_path / "masks/p.dcm")
    sources = [pydicom.dcmread(file) for file in sorted((tmp_path / "images/p").iterdir())]
    sources.sort(key=lambda item: int(item.InstanceNumber))
    frames = mask.transpose(2, 1, 0)
    for kind in ("LABELMAP", "FRACTIONAL"):
        pixels = frames if kind == "LABELMAP" else np.stack([(frames == k) * 0.8 for k in range(1, 5)], axis=-1)
        again = highdicom.seg.Segmentation(
            sources, pixels, kind, [seg.get_segment_description(k) for k in range(1, 5)], highdicom.UID(), 1,
            highdicom.UID(), 1, "toy", "toy", "1", "1",
        )  # fmt: skip
        again.save_as(tmp_path / f"{kind}.dcm")
        np.testing.assert_array_equal(load_label(tmp_path / f"{kind}.dcm", image.shape, affine), mask)


def test_a_seg_of_another_series_and_an_rtstruct_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "p")
    image, affine = load_volume(tmp_path / "images/p")
    path = tmp_path / "masks/p.dcm"
    for shift, message in (([4.0, 4.0, 0], "voxels beside them"), ([900.0, 0, 0], "outside the volume")):
        with pytest.raises(TskdError, match=message):
            load_label(path, image.shape, affines.from_matvec(np.eye(3), shift) @ affine)
    header = pydicom.dcmread(path)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.RTStructureSetStorage
    header.save_as(path)
    with pytest.raises(TskdError, match="found an RTSTRUCT, whose contours are no voxels"):
        load_label(path, image.shape, affine)


def test_two_segments_on_one_voxel_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "p")
    image, affine = load_volume(tmp_path / "images/p")
    seg = pydicom.dcmread(tmp_path / "masks/p.dcm")
    seg.PixelData = np.packbits(np.ones(seg.pixel_array.size, bool), bitorder="little").tobytes()
    seg.save_as(tmp_path / "masks/p.dcm")
    with pytest.raises(TskdError, match="expected one segment a voxel"):
        load_label(tmp_path / "masks/p.dcm", image.shape, affine)


def test_prepare_takes_series_with_their_seg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = {patient: write_pair(tmp_path, patient, number) for number, patient in enumerate("abcd")}
    command = ["prepare", "volumes", "--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")]
    names = ",".join(list(NAMES.values())[1:])
    assert main([*command, "--labels", names, "--output", str(tmp_path / "out")]) == 0
    (entry,) = data.read(tmp_path / "out/dataset.json")["test"]
    label, _ = load_volume(tmp_path / "out" / entry["label"])
    assert any(label.shape == mask.shape and (label == mask).all() for mask in masks.values())
    assert main([*command, "--labels", "spleen,liver,left kidney,right kidney", "--output", str(tmp_path / "no")]) == 2
    assert "found segment 1 'liver'" in capsys.readouterr().err
