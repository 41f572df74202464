"""Frames of an enhanced multi-frame DICOM image (CT, MR) as data sets of one frame each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tskd.data.io.limits import VOLUME, refuse_larger
from tskd.errors import TskdError

_GROUPS = {  # functional group -> tags of it that an image of one frame has at its top
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
}
_LEFT = ("PixelData", "NumberOfFrames", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


def split_frames(path: Path, image: Dataset) -> list[Dataset]:
    """Return the frames of an enhanced multi-frame image; of any other image the image itself.

    Args:
        path: file of the image, for errors.
        image: as it was read, with its pixels in any transfer syntax.

    Returns:
        Data sets with the position, orientation, spacing and rescaling of their frame, and uncompressed pixels.

    Raises:
        TskdError: pixels that cannot be decoded, or other numbers of frames and of their functional groups.
    """
    count = int(image.get("NumberOfFrames") or 1)
    groups = image.get("PerFrameFunctionalGroupsSequence")
    if not groups or int(image.get("SamplesPerPixel") or 1) != 1:
        return [image]  # which is one frame, or is refused where it is looked at
    if len(groups) != count:
        raise TskdError(f"{path}: expected functional groups for {count} frames, found {len(groups)}. Export it again.")
    refuse_larger(int(image.Rows) * int(image.Columns) * int(image.BitsAllocated) // 8 * count, VOLUME, path)
    try:
        pixels = image.pixel_array.reshape(count, int(image.Rows), int(image.Columns))
    except Exception as error:  # pydicom's decoders raise many kinds
        raise TskdError(
            f"{path}: expected readable pixels, found {error} (transfer syntax "
            f"{image.file_meta.get('TransferSyntaxUID')}). Decompress the image (gdcmconv --raw) or copy it again."
        ) from error
    (shared,) = image.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = []
    for frame_groups, values in zip(groups, pixels, strict=True):
        frame = Dataset()
        for element in image:
            if element.keyword not in _LEFT:
                frame.add(element)
        for sequence, tags in _GROUPS.items():
            for group in (shared, frame_groups):
                _copy(group.get(sequence), tags, frame)
        frame.PixelData = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
        frame.file_meta = FileMetaDataset()
        frame.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        frame.set_original_encoding(False, True)
        frames.append(frame)
    return frames


def _copy(sequence: Any, tags: tuple[str, ...], frame: Dataset) -> None:
    for item in sequence or ():
        for tag in tags:
            if tag in item:
                frame[tag] = item[tag]
