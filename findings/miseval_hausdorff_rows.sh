#!/usr/bin/env bash
# miseval 1.3.0 (hausdorff 0.2.6): the Hausdorff distance takes rows of a mask for points; a miss of 60 px may be 0.
#
# Expected: HD is the largest distance from one border to the other, AHD ("AverageHausdorffDistance") the average one,
#   and the boundary distance BD of a mask to itself is 0, as the names say and as Dice beside them suggests.
# Seen: an organ found 60 px below its place, without one pixel in common, has HD 0.0; found 60 px to the right it has
#   4.58; found in its place but 1 px too large it has 1.41, so the perfect-looking number is the worst one. AHD is
#   the largest distance, as HD should be: 60, 60, 1. BD of a mask to itself grows with it: 6.5 px at a radius of 5.
# Why: the masks are handed to a function that takes arrays of points x coordinates, so that a mask of 128 x 128 is 128
#   points in 128 dimensions, in any order; the class `c` is not looked at, either. AHD ends in a maximum, and BD is
#   the mean over all pairs of points of the two borders instead of over each point's nearest.
# Who is hit: tables and challenges with miseval's distances. Its overlap metrics (DSC, IoU) use none of this code.
# Source: miseval/hausdorff.py, `calc_SimpleHausdorffDistance` and `calc_AverageHausdorffDistance`;
#   miseval/boundary_distance.py, `calc_Boundary_Distance`; hausdorff/hausdorff.py, `hausdorff_distance`.
# What helps: distances from MONAI, surface-distance or SimpleITK; of miseval, "AHD" where the maximum is wanted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check miseval==1.3.0 hausdorff==0.2.6 \
    dictances==1.5.3 scipy==1.17.1 scikit-image==0.26.0 'numpy>=2,<2.5'
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
from miseval import evaluate
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import directed_hausdorff

y, x = np.mgrid[:128, :128]


def disc(row, column, radius):
    return ((y - row) ** 2 + (x - column) ** 2 <= radius**2).astype(np.uint8)


def value(truth, found, metric):
    return round(float(evaluate(truth, found, metric=metric, multi_class=False)), 2)


truth = disc(30, 30, 10)
cases = {"60 px below": disc(90, 30, 10), "60 px to the right": disc(30, 90, 10), "1 px too large": disc(30, 30, 11)}
seen = []
for name, found in cases.items():
    borders = [np.argwhere(mask & ~binary_erosion(mask)) for mask in (truth.astype(bool), found.astype(bool))]
    scipy = max(directed_hausdorff(*borders)[0], directed_hausdorff(*borders[::-1])[0])
    seen.append((*(value(truth, found, metric) for metric in ("DSC", "HD", "AHD")), round(float(scipy), 2)))
    dsc, hd, ahd, right = seen[-1]
    print(f"{name}: DSC {dsc}, HD {hd}, AHD {ahd}; scipy's Hausdorff distance {right} px")
seen.append([value(disc(30, 30, radius), disc(30, 30, radius), "BD") for radius in (3, 5)])
print(f"BD of a mask to itself, radius 3 and 5 px: {seen[-1]}")
if seen != [(0.0, 0.0, 60.0, 60.0), (0.0, 4.58, 60.0, 60.0), (0.91, 1.41, 1.0, 1.0), [3.92, 6.51]]:
    sys.exit("this has changed")
PYTHON
