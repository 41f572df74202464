#!/usr/bin/env bash
# MONAI 1.6.1 (torch 2.13.0): `Resize(..., anti_aliasing=True)` changes the brightness of the border.
#
# Expected: a constant image stays constant when it is made smaller, as with `torch.nn.functional.interpolate` and
#   antialias=True, or scikit-image's resize with anti_aliasing=True. A CT slice of air (-1000 HU) is air to the edge.
# Seen: the Gaussian filter before the interpolation pads with zeros and is not normalised. At half the size the edges
#   keep 0.92 and the corners 0.85 of the value, at a quarter 0.90 and 0.80: air of -1000 HU becomes -800 HU there, and
#   the skin or fat at the border of an MR slice gets darker. The wider the filter, the more pixels are concerned.
# Source: monai/transforms/spatial/functional.py, `resize` (GaussianSmooth on the image as it is), and
#   monai/networks/layers/simplelayers.py, `separable_filtering` with its default mode="zeros".
# What helps: torch's own antialias for 2-D images; for volumes, padding with mode="edge" before the resize.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 monai==1.6.1 'numpy>=2,<2.5' scikit-image==0.26.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
import torch
from monai.transforms import Resize
from skimage.transform import resize
from torch.nn.functional import interpolate

air = torch.full((1, 64, 64), -1000.0)
seen = []
for size in (32, 16):
    monai = Resize((size, size), mode="bilinear", anti_aliasing=True)(air)
    plain = interpolate(air[None], (size, size), mode="bilinear", antialias=True)
    skimage = resize(air[0].numpy(), (size, size), anti_aliasing=True, preserve_range=True)
    assert np.allclose(plain, -1000, atol=1e-2) and np.allclose(skimage, -1000, atol=1e-2)
    middle, edge, corner = (round(float(monai[0, x, y])) for x, y in ((size // 2, size // 2), (0, size // 2), (0, 0)))
    print(f"64 -> {size}: MONAI middle {middle}, edge {edge}, corner {corner}; torch and scikit-image -1000 everywhere")
    seen.append((middle, edge, corner))
sys.exit(seen != [(-1000, -920, -846), (-1000, -897, -804)])
PYTHON
