#!/usr/bin/env bash
# torch 2.13.0: torch.jit.script takes an attribute of a module for an operator that was freed long before.
#
# Expected: torch.jit.script(nn.Conv2d(1, 1, 3)) works, whatever the process did before.
# Seen: in a process that defined overloads of operators it sometimes ends in "builtin cannot be used as a value", pointing at
#   `self._reversed_padding_repeated_twice` in torch's own conv.py; the same network scripts a moment later.
# Why: the table of known operators is keyed by the address of the Python object. An operator that gets a second overload is
#   given a new object, the old one is freed, and its address stays in the table. Any list, number or string that comes to lie
#   there is an operator from then on, as the table is asked before the attribute's type.
# Who is hit: long processes that script networks (exports of bundles, test suites): rarely, and never twice in one place.
# Source: torch/jit/_builtins.py (_find_builtin), torch/_ops.py (_refresh_packet), torch/jit/_recursive.py.
# What helps: script in a process of its own, as `python -m monai.bundle ckpt_export` does, or trace.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import gc
import sys

import torch
from torch import nn

torch.jit.script(nn.Conv2d(1, 1, 3))
print("before: nn.Conv2d scripts")
library, operators = torch.library.Library("demo", "DEF"), []
for k in range(20000):  # many, so that it happens at once
    library.define(f"operator{k}(Tensor x) -> Tensor")
    operators.append(getattr(torch.ops.demo, f"operator{k}")._op)
for k in range(20000):
    library.define(f"operator{k}.two(Tensor x, Tensor y) -> Tensor")
del operators
gc.collect()
said, networks = [], []
for _ in range(2000):
    networks.append(nn.Conv2d(1, 1, 3, padding=1))
    try:
        torch.jit.script(networks[-1])
    except RuntimeError as error:
        said.append(str(error).strip().splitlines()[0])
        break
print(f"after:  convolution {len(networks)} does not: {said}")
if said != ["builtin cannot be used as a value:"]:
    sys.exit("this has changed: no convolution was taken for an operator")
PYTHON
