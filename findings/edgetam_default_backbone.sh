#!/usr/bin/env bash
# transformers 5.23.0: the default settings of EdgeTAM's image encoder name a ResNet-50, not EdgeTAM's RepViT M1.
#
# Expected: EdgeTamVisionConfig() without arguments describes EdgeTAM's published encoder, RepViT M1, as the default settings of
#   a family do in transformers; its channel list [384, 192, 96, 48] is that of RepViT M1.
# Seen: the backbone's `architecture` is resnet50; repvit_m1 is kept under `archirecture`, which nothing reads.
# Why: the default for the backbone spells the key `archirecture`, and TimmWrapperConfig keeps keys that it does not know.
# Who is hit: whoever builds the encoder from the default settings, for training from scratch, a test or a count of
#   parameters, gets another network, whose channels do not fit the neck. Published config.json files name their backbone.
# Source: transformers/models/edgetam/configuration_edgetam.py, `sub_configs_defaults` of EdgeTamVisionConfig.
# What helps: pass backbone_config with `architecture` spelt out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os
import sys

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from transformers import EdgeTamVisionConfig

settings = EdgeTamVisionConfig()
backbone = settings.backbone_config.to_dict()
print(f"channels of the neck's input:  {settings.backbone_channel_list}")
print(f"backbone, architecture:        {backbone['architecture']}")
print(f"backbone, archirecture:        {backbone.get('archirecture')}")
if (backbone["architecture"], backbone.get("archirecture")) != ("resnet50", "repvit_m1"):
    sys.exit("this has changed: the default backbone is no longer a ResNet-50")
PYTHON
