#!/usr/bin/env bash
# rt-utils 1.2.7 (pydicom 3.0.2): RTSTRUCT contours are misplaced for oblong pixels, masks are cut for oblong images.
#
# Expected: a mask written as RTSTRUCT lies where its voxels lie, and is read back as it was, whatever its shape.
# Seen: with pixels 2 mm high and 1 mm wide, an organ at 40 to 49 mm in x and 40 to 58 mm in y is written at 80 to 98
#   and 20 to 29 mm: elsewhere in the patient, in another shape. rt-utils reads it back well, as it makes the same
#   mistake again. With 64 rows and 96 columns, the mask read has 96 rows and 64 columns and lacks the second organ.
# Why: PixelSpacing is first the distance between rows, so the step along a column, but scales the direction along a
#   row; and the empty mask for reading has Columns x Rows, where arrays of pixels have Rows x Columns.
# Who is hit: MR, often of oblong matrices, and images of oblong pixels, to and from treatment planning; no square CT.
# Source: rt_utils/image_helper.py, `get_pixel_to_patient_transformation_matrix`, `create_empty_slice_mask`.
# What helps: square pixels and images before both ways; comparing millimetres with another reader.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip pydicom==3.0.2 opencv-python-headless==5.0.0.93 'numpy>=2,<2.5'
pip --no-deps rt-utils==1.2.7
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os, sys

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from rt_utils import RTStructBuilder

def both_ways(folder, mask, spacing):
    """Write three MR slices and the mask as RTSTRUCT; return its first contour in mm and the mask as it is read."""
    os.mkdir(folder)
    empty = "StudyDate StudyTime StudyID PatientID PatientName PatientBirthDate PatientSex".split()
    same = {name: generate_uid() for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    for z in range(3):
        data, data.file_meta = pydicom.Dataset(), pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for name, value in (same | dict.fromkeys(empty, "") | {
            "SOPClassUID": MRImageStorage, "SOPInstanceUID": generate_uid(), "Modality": "MR", "InstanceNumber": z + 1,
            "Rows": mask.shape[0], "Columns": mask.shape[1], "PixelSpacing": spacing, "SliceThickness": 3,
            "ImagePositionPatient": [0, 0, 3 * z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
            "HighBit": 15, "PixelRepresentation": 0, "PixelData": bytes(2 * mask[..., z].size)}).items():
            setattr(data, name, value)
        data.save_as(f"{folder}/{z}.dcm", enforce_file_format=True)
    new = RTStructBuilder.create_new(folder)
    new.add_roi(mask=mask, name="organ")
    contour = np.array(new.ds.ROIContourSequence[0].ContourSequence[0].ContourData, float).reshape(-1, 3)
    new.ds.save_as("rt.dcm", enforce_file_format=True)
    return contour, RTStructBuilder.create_from(folder, "rt.dcm").get_roi_mask_by_name("organ")

pixels, image = np.zeros((64, 64, 3), bool), np.zeros((64, 96, 3), bool)
pixels[20:30, 40:50, 1] = image[20:30, 50:60, 1] = image[20:30, 70:80, 1] = True
(contour, read), (_, cut) = both_ways("pixels", pixels, [2, 1]), both_ways("image", image, [1, 1])
x, y = ((int(contour[:, axis].min()), int(contour[:, axis].max())) for axis in (0, 1))
same = bool((read == pixels).all())
print(f"pixels of 2 x 1 mm: expected x (40, 49), y (40, 58) mm; written x {x}, y {y}; read back as it was: {same}")
print(f"image of {image.shape}, {image.sum()} voxels in two organs: read back {cut.shape}, {cut.sum()} voxels")
sys.exit((x, y, same, cut.shape, int(cut.sum())) != ((80, 98), (20, 29), True, (96, 64, 3), 100))
PYTHON
