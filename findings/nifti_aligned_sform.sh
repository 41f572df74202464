#!/usr/bin/env bash
# nibabel 5.4.2 and SimpleITK 2.5.7: a mask made with the affine of its own image lies elsewhere than the image.
#
# Expected: a mask that was computed from an image's voxels and saved with that image's affine covers it in every
#   viewer and tool, as it does where the image has one geometry only.
# Seen: an image that was registered (qform code 1 of the scanner, sform code 2 "aligned", 20 mm to the side). nibabel
#   gives the sform, and a mask saved with it has the sform alone. SimpleITK takes the sform of the mask and the qform
#   of the image: two files of one grid are 20 mm apart, without a warning. With code 1 they lie together.
# Why: NIfTI allows two geometries and names no winner. nibabel takes the sform whenever it has a code. ITK takes the
#   qform where both have one, unless the sform's code is 1.
# Who is hit: whoever segments images whose registration was written into the sform alone (codes 2 to 4 are made for
#   that), and then measures doses or radiomics, resamples the mask to the image or looks at it with SimpleITK or
#   another tool built on ITK.
# Source: nibabel/nifti1.py, `get_best_affine`, `Nifti1Pair.__init__`; ITK's itkNiftiImageIO.cxx,
#   `SetImageIOOrientationFromNIfTI`.
# What helps: compare both forms before an image is used; write image and mask with equal forms, both of code 1.
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

voxels = np.zeros((40, 40, 10), np.int16)
voxels[5:10, 5:10, 3:6] = 100
scanner, aligned = np.diag([1.0, 1.0, 3.0, 1.0]), np.diag([1.0, 1.0, 3.0, 1.0])
aligned[0, 3] = 20  # mm, found by a registration
seen = []
for code in (1, 2, 4):
    image = nib.Nifti1Image(voxels, None)
    image.set_qform(scanner, code=1)
    image.set_sform(aligned, code=code)
    nib.save(image, "image.nii.gz")
    image = nib.load("image.nii.gz")
    organ = (np.asarray(image.dataobj) > 50).astype(np.uint8)
    nib.save(nib.Nifti1Image(organ, image.affine), "mask.nii.gz")
    pair = [sitk.ReadImage(f"{name}.nii.gz") for name in ("image", "mask")]
    x = [one.GetOrigin()[0] for one in pair]
    shares = sitk.GetArrayFromImage(sitk.Resample(pair[1], pair[0], sitk.Transform(), sitk.sitkNearestNeighbor))
    on_organ = int(shares[sitk.GetArrayFromImage(pair[0]) > 50].sum())
    seen.append((*x, on_organ))
    print(f"sform code {code}: SimpleITK's origin in x, image {x[0]:.0f} mm, mask {x[1]:.0f} mm; "
          f"voxels of the organ under the mask, resampled to the image: {on_organ} of {organ.sum()}")
if seen != [(-20, -20, 75), (0, -20, 0), (0, -20, 0)]:
    sys.exit("this has changed")
PYTHON
