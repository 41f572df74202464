"""Write a volume as an MR DICOM series that names nobody."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

_EMPTY = (  # tags that a valid MR image must have but may leave empty
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "Manufacturer"),
    *("PatientName", "PatientBirthDate", "PatientSex", "PatientPosition", "Laterality", "PositionReferenceIndicator"),
    *("EchoTime", "RepetitionTime", "EchoTrainLength"),
)


def write_series(
    folder: str | os.PathLike[str],
    array: np.ndarray,
    affine: np.ndarray,
    patient_id: str,
    uid_seed: str,
    file_order: Sequence[int] | None = None,
) -> None:
    """Write one file a slice: MR Image Storage, explicit VR little endian, without names and dates.

    Args:
        folder: new folder for the files IM0000.dcm, IM0001.dcm, ...
        array: int16 [X, Y, Z], not negative; x runs along the rows of an image, y down its columns.
        affine: 4 x 4 from voxel to millimetres (RAS+); its columns at right angles.
        patient_id: PatientID of an invented person.
        uid_seed: text that all UIDs are derived from.
        file_order: file number of each slice; None numbers them in order.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    to_world = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's LPS
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    directions = to_world[:3, :3] / spacing
    for k in range(array.shape[2]):
        number = k if file_order is None else int(file_order[k])
        image = Dataset()
        image.SOPClassUID = MRImageStorage
        image.SOPInstanceUID = _uid(uid_seed, f"instance {k}")
        image.StudyInstanceUID = _uid(uid_seed, "study")
        image.SeriesInstanceUID = _uid(uid_seed, "series")
        image.FrameOfReferenceUID = _uid(uid_seed, "frame")
        image.PatientID = patient_id
        for tag in _EMPTY:
            setattr(image, tag, None)
        image.Modality = "MR"
        image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions, image.MRAcquisitionType = (
            "SE",
            "NONE",
            "FS",
            "2D",
        )
        image.SeriesNumber, image.InstanceNumber = 1, k + 1
        image.ImageOrientationPatient = [_decimal(v) for v in (*directions[:, 0], *directions[:, 1])]
        image.ImagePositionPatient = [_decimal(v) for v in (to_world @ [0, 0, k, 1])[:3]]
        image.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        image.SliceThickness = image.SpacingBetweenSlices = _decimal(spacing[2])
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows, image.Columns = array.shape[1], array.shape[0]
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = np.ascontiguousarray(array[:, :, k].T.astype("<u2")).tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.save_as(Path(folder, f"IM{number:04d}.dcm"), enforce_file_format=True)


def _uid(seed: str, what: str) -> UID:
    """Return a UID under 2.25 (the root for UIDs made from a number), the same for the same text."""
    digest = hashlib.sha256(f"{seed} {what}".encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _decimal(value: float) -> str:
    """Return a DICOM decimal string: 16 characters at most."""
    return f"{value:.8f}".rstrip("0").rstrip(".")[:16]
