#!/usr/bin/env bash
# MONAI 1.6.1: FlexibleUNet(in_channels=1, pretrained=True) keeps a random first convolution, and says nothing.
#
# Expected: for grey images, the usual case in medicine, either an error, a warning, or the colour weights summed to one channel.
# Seen: all layers have the pretrained weights but the first, which has other channels and stays random: the layers behind it get
#   features that they never saw. Batch norm's statistics are those of the colour network, too.
# Why: tensors whose name or shape differs are passed over one by one, and the rest is loaded.
# Who is hit: everyone who fine-tunes EfficientNet-based networks of MONAI on CT, MR, X-ray or ultrasound as published.
# Source: monai/networks/nets/efficientnet.py (_load_state_dict).
# What helps: three equal channels, or summing the first convolution's weights by hand.
# The file here has random weights in the published layout, and lies where torch's hub would have put the downloaded one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 monai==1.6.1 numpy==2.2.6
TORCH_HOME=$folder/hub "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os
import re
import sys
import warnings
from pathlib import Path

import torch
from monai.networks.nets import EfficientNetBN, FlexibleUNet
from monai.networks.nets.efficientnet import url_map

torch.manual_seed(0)
classifier = EfficientNetBN("efficientnet-b0", pretrained=False).state_dict()
file = Path(os.environ["TORCH_HOME"], "hub/checkpoints", url_map["efficientnet-b0"].rsplit("/", 1)[1])
file.parent.mkdir(parents=True)
torch.save({re.sub(r"_blocks\.\d+\.", "_blocks.", name): value for name, value in classifier.items()}, file)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    encoder = FlexibleUNet(1, 2, "efficientnet-b0", pretrained=True, spatial_dims=2).encoder.state_dict()
words = [str(one.message) for one in said if "pretrain" in str(one.message) or "shape" in str(one.message)]
other = [name for name, value in encoder.items() if not torch.equal(value, classifier[name])]
print(f"tensors of the encoder: {len(encoder)}; not those of the file: {other}; warnings about it: {words}")
stem, summed = encoder["_conv_stem.weight"], classifier["_conv_stem.weight"].sum(1, keepdim=True)
print(f"the first convolution against the summed colours: correlation {torch.corrcoef(torch.stack([stem.flatten(), summed.flatten()]))[0, 1]:.2f}")
if other != ["_conv_stem.weight"] or words:
    sys.exit("this has changed: the first convolution is loaded, or its absence is said")
PYTHON
