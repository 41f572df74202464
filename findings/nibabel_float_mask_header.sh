#!/usr/bin/env bash
# nibabel 5.4.2: a mask of whole numbers, saved as floats with its image's header, comes back with other labels.
#
# Expected: labels 0, 1, 2, 3 in a float array (as networks, resamplers and get_fdata() give) fit an int16 or uint8
#   file as they are, and are read as 0, 1, 2, 3 again.
# Seen: with the header of an int16 CT they come back as 0, 0.9999999998, 1.9999999995, 2.9999999993: astype(np.uint8)
#   makes 0, 0, 1, 2 of them, so each organ becomes its neighbour in the list, the first one is gone, and `mask == 1`
#   is empty. With the header of a uint8 image, eight labels come back as 0, 0.988, 2.004, 2.992 and so on, which the
#   same cast makes 0, 0, 2, 2, 4, 4, 6, 7.
# Why: floats that go to an integer file are always stretched over the whole range of its type, with scl_slope and
#   scl_inter in the header, even if all of them are whole numbers that the type holds. SimpleITK applies them, too.
# Who is hit: whoever saves Nifti1Image(mask, image.affine, image.header), the usual way to keep the geometry, with a
#   mask that was not cast first, and whoever reads such files by a cast or a comparison.
# Source: nibabel/arraywriters.py, `SlopeArrayWriter.scaling_needed` and `_range_scale`; nibabel/analyze.py,
#   `to_file_map`, which takes the type of the header that was given.
# What helps: mask.astype(np.uint8) before it is saved, and set_data_dtype(np.uint8); np.rint where masks are read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 \
    'numpy>=2,<2.5'
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

seen = []
for dtype, last in ((np.int16, 3), (np.uint8, 7)):
    image = nib.Nifti1Image(np.zeros((last + 1, 1, 1), dtype), np.eye(4))
    mask = np.arange(last + 1, dtype=np.float64).reshape(-1, 1, 1)
    nib.save(nib.Nifti1Image(mask, image.affine, image.header), "mask.nii.gz")
    values = nib.load("mask.nii.gz").get_fdata().ravel()
    itk = sitk.GetArrayFromImage(sitk.ReadImage("mask.nii.gz")).ravel()
    read, kept = values.astype(np.uint8).tolist(), int((values == mask.ravel()).sum())
    print(f"{np.dtype(dtype)} header, labels 0 to {last}: read {[round(float(value), 10) for value in values]}")
    print(f"  astype(uint8) {read}; equal to before: {kept}; by SimpleITK {[round(float(value), 3) for value in itk]}")
    seen.append((read, kept))
if seen != [([0, 0, 1, 2], 1), ([0, 0, 2, 2, 4, 4, 6, 7], 1)]:
    sys.exit("this has changed")
PYTHON
