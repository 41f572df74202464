#!/usr/bin/env bash
# MedPy 0.5.2, MONAI 1.6.1 (torch 2.13.0) and surface-distance 0.1: HD95 of the same two masks is 0 in one, 64 px in others.
#
# Expected: the 95th percentile of the Hausdorff distance, in the tables of most segmentation papers, is one number for
#   one pair of masks, whichever of the usual libraries has computed it.
# Seen: a disc of 20 px radius, found exactly, and a false positive of 13 pixels (1% of the disc) 85 px away: MedPy 0.0,
#   MONAI 63.6, surface-distance 64.4. With 5 pixels MedPy and MONAI say 0.0 and surface-distance 62.9; with 29 all of
#   them are above 62. So the same model may look perfect or lost, and tables of two papers cannot be compared.
# Why: MedPy takes one percentile of the distances of both directions together, which halves the share of the far ones;
#   MONAI takes the percentile of each direction and the larger of the two; surface-distance does so, too, and weighs each
#   piece of the surface by its length, where the others count border pixels.
# Source: medpy/metric/binary.py, `hd95`; monai/metrics/hausdorff_distance.py, `compute_percent_hausdorff_distance`;
#   surface_distance/metrics.py, `compute_robust_hausdorff`.
# What helps: name the definition beside the number, and compute all methods of a table with one program.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 monai==1.6.1 'numpy>=2,<2.5' \
    scipy==1.17.1 medpy==0.5.2 surface-distance==0.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
import torch
from medpy.metric.binary import hd95
from monai.metrics import compute_hausdorff_distance
from surface_distance import compute_robust_hausdorff, compute_surface_distances

y, x = np.mgrid[:128, :128]
truth = (y - 40) ** 2 + (x - 40) ** 2 <= 20**2
seen = []
for radius in (1, 2, 3):
    far = (y - 100) ** 2 + (x - 100) ** 2 <= radius**2
    prediction = truth | far
    one, two = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (prediction, truth))
    distances = compute_surface_distances(truth, prediction, (1.0, 1.0))
    values = (
        hd95(prediction, truth),
        compute_hausdorff_distance(one, two, include_background=True, percentile=95).item(),
        compute_robust_hausdorff(distances, 95),
    )
    seen.append(tuple(round(float(value), 1) for value in values))
    print(f"{far.sum()} far pixels beside {truth.sum()}: MedPy {seen[-1][0]}, MONAI {seen[-1][1]}, surface-distance {seen[-1][2]} px")
sys.exit(seen != [(0.0, 0.0, 62.9), (0.0, 63.6, 64.4), (62.9, 65.5, 65.8)])
PYTHON
