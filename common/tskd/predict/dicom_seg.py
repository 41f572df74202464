"""Write a mask as a DICOM Segmentation object, by highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom

from tskd import __version__
from tskd.data.io.dicom_series import series_files
from tskd.errors import TskdError
from tskd.files import atomic, sha256
from tskd.predict.organ_codes import Code, code_of
from tskd.predict.shipped_bundle import ShippedBundle


def write_seg(
    path: Path,
    mask: np.ndarray,
    files: Sequence[Path],
    bundle: ShippedBundle,
    codes: Mapping[str, Code] | None = None,
) -> list[str]:
    """Write a binary segmentation with one segment a structure, of which empty ones have no frames.

    The source images are read without their pixels, so that the object names them by the UIDs of the archive.

    Args:
        path: new file.
        mask: uint8 [X, Y, Z] as `read_series` orders its volume.
        files: of the series.
        bundle: that made the mask: labels, name and version are its.
        codes: the user's codes of structures.

    Returns:
        Warnings: structures that have a private code.

    Raises:
        TskdError: highdicom is not installed, or the series lacks what a SEG needs.
    """
    try:
        import highdicom
        from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
    except ImportError as error:
        raise TskdError(
            "--format dicom-seg: expected highdicom, found it not installed. pip install 'highdicom>=0.28'"
        ) from error
    from pydicom.sr.codedict import codes as dicom_codes

    ordered = series_files(files[0].parent, files)
    if len(set(ordered)) < len(ordered):
        raise TskdError(
            f"{files[0]}: expected a file for each slice, found a multi-frame image, which is not "
            "supported here. Choose --format nifti."
        )
    sources = [_in_unicode(file) for file in ordered]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=bundle.name[:64], version=bundle.version, family=dicom_codes.DCM.ArtificialIntelligence, source="tskd"
    )
    segments, warnings = [], []
    for number, (index, label) in enumerate(sorted(bundle.structures.items()), start=1):
        name = label.replace("\\", "/")  # which in DICOM separates values
        category, code = code_of(name, codes)
        if code.scheme == "99TSKD":
            warnings.append(f"{name}: no SNOMED code known, a private one is written (--codes FILE names it)")
        segments.append(
            SegmentDescription(
                segment_number=number,
                segment_label=name[:64],
                segmented_property_category=highdicom.sr.CodedConcept(*category),
                segmented_property_type=highdicom.sr.CodedConcept(*code),
                algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_id=f"class {index} {name}"[:64],
                tracking_uid=highdicom.UID(),
            )
        )
    frames = np.zeros((mask.shape[2], mask.shape[1], mask.shape[0]), np.uint8)
    for number, index in enumerate(sorted(bundle.structures), start=1):
        frames[mask.transpose(2, 1, 0) == index] = number
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=300,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="tskd",
            manufacturer_model_name=bundle.name[:64],
            software_versions=__version__,
            device_serial_number=sha256(bundle.model)[:16] if bundle.model.is_file() else "0",
            series_description=f"{bundle.name}"[:64],
            content_description=f"Segmentation by {bundle.name}"[:64],
            omit_empty_frames=bool(frames.any()),
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise TskdError(
            f"{ordered[0].parent}: expected a series that a DICOM SEG can refer to, found {error}. Use --format nifti."
        ) from error
    with atomic(path) as draft:
        segmentation.save_as(draft)
    return warnings


def _in_unicode(file: Path) -> pydicom.Dataset:
    """Return the header of a source image with its text in UTF-8.

    highdicom takes over the character set of the source, and pydicom writes a question mark for each letter of a
    structure's name that this does not have.
    """
    header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"
    return header
