#!/usr/bin/env bash
# MONAI 1.6.1: DeepSupervisionLoss refuses labels of whole numbers, which the loss inside takes.
#
# Expected: the loss is "a wrapper around the main loss" for several outputs: what DiceCELoss takes as a target (class indices, int64, as
#   torch's cross-entropy wants them), the wrapper takes, too.
# Seen: NotImplementedError ("upsample_nearest2d ... not implemented for 'Long'"), also of int32 and bool. With float32 and uint8 it runs. A list
#   whose outputs all have the target's size runs with int64, so that it turns up only with the second resolution.
# Why: the target is brought to each output's size by torch's interpolate, nearest-exact, which on a CPU has no kernel of integers but uint8.
# Who is hit: who deeply supervises a network of their own on labels cast to long. `label.to(torch.uint8)` is a way round for up to 256 classes.
# Source: monai/losses/ds_loss.py (get_loss), torch.nn.functional.interpolate.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 monai==1.6.1 numpy==2.2.6
seen=$("$folder/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss

plain = DiceCELoss(to_onehot_y=True, softmax=True)
deep = DeepSupervisionLoss(plain)
torch.manual_seed(0)
logits = [torch.rand(2, 3, 16, 16), torch.rand(2, 3, 8, 8)]
label = torch.randint(0, 3, (2, 1, 16, 16))


def said(loss, *arguments):
    try:
        return "runs" if torch.isfinite(loss(*arguments)) else "not finite"
    except Exception as error:
        return type(error).__name__


print("DiceCELoss, int64:", said(plain, logits[0], label), end="; ")
print("one resolution, int64:", said(deep, logits[:1], label), end="; two resolutions: ")
kinds = ("float32", "uint8", "int32", "int64", "bool")
print(", ".join(f"{kind} {said(deep, logits, label.clamp(max=1).to(getattr(torch, kind)))}" for kind in kinds))
PYTHON
)
echo "$seen"
expected="DiceCELoss, int64: runs; one resolution, int64: runs; two resolutions: float32 runs, uint8 runs, int32 NotImplementedError, \
int64 NotImplementedError, bool NotImplementedError"
[ "$seen" = "$expected" ] || { echo "this has changed"; exit 1; }
