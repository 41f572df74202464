"""One DICOM series in the encodings that archives hold: transfer syntaxes, 12 bits in 16, rescaling, multi-frame."""

import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedMRImageStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

ENCODINGS = ("explicit", "implicit", "rle", "jpeg_ls", "jpeg_2000", "multi_frame")
INTERCEPT = -1024  # Hounsfield units of a stored 0


def encode(folder: Path, encoding: str) -> None:
    """Write the files of a series (16 bits, values below 4096, no rescaling) anew: 12 bits in 16 and with INTERCEPT."""
    files = sorted(folder.glob("*.dcm"))
    if encoding == "multi_frame":
        _multi_frame(files)
        return
    for path in files:
        image = pydicom.dcmread(path)
        image.BitsStored, image.HighBit = 12, 11
        image.RescaleIntercept, image.RescaleSlope = str(INTERCEPT), "1"
        if encoding == "implicit":
            image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            image.save_as(path, implicit_vr=True, little_endian=True)
            continue
        if encoding == "jpeg_2000":
            content = io.BytesIO()
            pixels = Image.fromarray(image.pixel_array.astype(np.uint16))
            pixels.save(content, format="JPEG2000", irreversible=False, no_jp2=True)
            image.PixelData = encapsulate([content.getvalue()])
            image["PixelData"].is_undefined_length = True
            image.file_meta.TransferSyntaxUID = JPEG2000Lossless
        elif encoding in ("rle", "jpeg_ls"):
            image.compress({"rle": RLELossless, "jpeg_ls": JPEGLSLossless}[encoding], generate_instance_uid=False)
        image.save_as(path)


def _multi_frame(files: list[Path]) -> None:
    """One enhanced file in place of the series' files, its frames in the order of their names."""
    images = [pydicom.dcmread(path) for path in files]
    enhanced, own = pydicom.dcmread(files[0]), []
    for image in images:
        position, item = Dataset(), Dataset()
        position.ImagePositionPatient = image.ImagePositionPatient
        item.PlanePositionSequence = Sequence([position])
        own.append(item)
    orientation, measures, rescale, shared = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = images[0].ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = images[0].PixelSpacing, images[0].SliceThickness
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = str(INTERCEPT), "1", "HU"
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(enhanced, tag)
    enhanced.SharedFunctionalGroupsSequence = Sequence([shared])
    enhanced.PerFrameFunctionalGroupsSequence = Sequence(own)
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    enhanced.NumberOfFrames, enhanced.BitsStored, enhanced.HighBit = len(images), 12, 11
    enhanced.PixelData = np.stack([image.pixel_array for image in images]).astype("<u2").tobytes()
    for path in files:
        path.unlink()
    enhanced.save_as(files[0])
