"""A DICOM Segmentation as the label of a volume: each frame goes to the slice whose position it has."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from tskd.errors import TskdError

_STORAGE = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",  # label map
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}
_NEAR = 0.1  # voxels between a frame's pixel and the voxel that it is taken for


def segmentation_file(path: str | os.PathLike[str]) -> Path | None:
    """Return the DICOM object that a path means as a label: a file, or the only one in a folder; None for others.

    Raises:
        TskdError: an RTSTRUCT, whose contours are no voxels.
    """
    path = Path(path)
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file() or files[0].name.lower().endswith((".nii", ".nii.gz")):
        return None
    try:
        header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=["SOPClassUID"], force=True)
    except Exception:  # whatever the parser makes of another file
        return None
    kind = _STORAGE.get(str(header.get("SOPClassUID", "")))
    if kind == "RTSTRUCT":
        raise TskdError(
            f"{files[0]}: expected a mask (NIfTI or DICOM SEG), found an RTSTRUCT, whose contours are no voxels. "
            "Convert it, for example in 3D Slicer (export the segmentation as NIfTI) or with plastimatch."
        )
    return files[0] if kind else None


def load_segmentation(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Read a DICOM SEG onto the grid of its image.

    Frames may be in any order and on planes turned or mirrored against the image's; those of empty slices may be left
    out. Segment numbers are the class indices.

    Args:
        path: SEG of binary, label map or fractional kind; of fractions a half and more counts.
        shape: of the image.
        affine: of the image, from voxels to millimetres (RAS+).

    Returns:
        uint8 array of the image's shape.

    Raises:
        TskdError: a frame that lies between or outside the image's voxels, or two segments on one voxel.
    """
    seg = pydicom.dcmread(path)
    try:
        frames = np.atleast_3d(seg.pixel_array) if seg.get("NumberOfFrames", 1) > 1 else seg.pixel_array[None]
        kind = str(seg.SegmentationType)
        shared, items = seg.SharedFunctionalGroupsSequence[0], seg.PerFrameFunctionalGroupsSequence
    except (AttributeError, RuntimeError, ValueError) as error:
        raise TskdError(f"{path}: expected a readable DICOM SEG, found {error}. Export it again.") from error
    threshold = int(seg.get("MaximumFractionalValue", 1)) / 2 if kind == "FRACTIONAL" else 0.5
    label = np.zeros(shape, np.uint8)
    from_world = np.linalg.inv(affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's LPS -> voxels
    for number, (frame, item) in enumerate(zip(frames, items, strict=True)):
        values = frame if kind == "LABELMAP" else (frame >= threshold) * _segment(item, shared)
        rows, columns = np.nonzero(values)
        if len(rows):
            _put(label, values[rows, columns], from_world @ _plane(item, shared) @ _points(rows, columns), path, number)
    return label


def segment_names(path: Path) -> dict[int, str]:
    """Return segment number -> label of a DICOM SEG."""
    seg = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SegmentSequence"])
    return {int(item.SegmentNumber): str(item.SegmentLabel) for item in seg.get("SegmentSequence", [])}


def _segment(item: Dataset, shared: Dataset) -> int:
    return int(_group("SegmentIdentificationSequence", item, shared).ReferencedSegmentNumber)


def _group(name: str, item: Dataset, shared: Dataset) -> Dataset:
    """Return a functional group, which each frame has, or all together."""
    return (item if name in item else shared)[name].value[0]


def _plane(item: Dataset, shared: Dataset) -> np.ndarray:
    """Return 4 x 3 from (column, row, 1) to millimetres (LPS)."""
    position = np.array(_group("PlanePositionSequence", item, shared).ImagePositionPatient, float)
    directions = np.array(_group("PlaneOrientationSequence", item, shared).ImageOrientationPatient, float)
    row_spacing, column_spacing = map(float, _group("PixelMeasuresSequence", item, shared).PixelSpacing)
    plane = np.zeros((4, 3))
    plane[:3, 0], plane[:3, 1], plane[:3, 2] = directions[:3] * column_spacing, directions[3:] * row_spacing, position
    plane[3, 2] = 1
    return plane


def _points(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.stack([columns, rows, np.ones_like(rows)])


def _put(label: np.ndarray, values: np.ndarray, voxels: np.ndarray, path: Path, frame: int) -> None:
    """Write a frame's values at its voxels [4, n]."""
    nearest = np.rint(voxels[:3]).astype(int)
    away = float(np.abs(voxels[:3] - nearest).max())
    inside = (nearest >= 0).all() and (nearest < np.array(label.shape)[:, None]).all()
    if away > _NEAR or not inside:
        what = f"{away:.2f} voxels beside them" if inside else "outside the volume"
        raise TskdError(
            f"{path}: expected frames on the voxels of the image, found frame {frame + 1} {what}. It may be of another "
            "series: pair each SEG with the series that it refers to."
        )
    before = label[tuple(nearest)]
    if overlap := int(((before != 0) & (before != values)).sum()):
        raise TskdError(
            f"{path}: expected one segment a voxel, found {overlap} voxels in two "
            f"(frame {frame + 1}). Remove the overlap."
        )
    label[tuple(nearest)] = values
