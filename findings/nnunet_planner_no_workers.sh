#!/usr/bin/env bash
# nnU-Net 2.8.1 (torch 2.13.0): the number of workers 0 trains in one process, and ends the planning with an error.
#
# Expected: a value of the environment variable nnUNet_n_proc_DA that training has a branch of its own for (0: augmentation
#   in the training's process, the only way on systems without shared memory) is taken by the whole program.
# Seen: the planner takes the same number for torch's threads while it estimates the memory of a network, and torch
#   refuses 0: `RuntimeError: set_num_threads expects a positive integer`. With 1 the plan is made.
# Source: nnunetv2/experiment_planning/experiment_planners/default_experiment_planner.py, `static_estimate_VRAM_usage`;
#   nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py, `get_dataloaders` (SingleThreadedAugmenter where it is 0).
# What helps: 1 while planning, 0 while training (as tests/peers/nnunet.py does).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip torch==2.13.0 numpy blosc2 connected-components-3d einops future matplotlib nibabel pandas pillow requests \
    scikit-image scikit-learn scipy seaborn setuptools SimpleITK threadpoolctl tifffile tqdm yacs graphviz imagecodecs
pip --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 acvl-utils==0.2.6 batchgenerators==0.25.5 \
    batchgeneratorsv2==0.3.6
cat > "$folder/plan.py" <<'PYTHON'
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

network = {
    "n_stages": 3, "features_per_stage": [8, 16, 32], "conv_op": "torch.nn.Conv2d", "kernel_sizes": [[3, 3]] * 3,
    "strides": [[1, 1], [2, 2], [2, 2]], "n_conv_per_stage": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2],
    "conv_bias": True, "norm_op": "torch.nn.InstanceNorm2d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
}
name = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
classes = ("conv_op", "norm_op", "dropout_op", "nonlin")
try:
    size = ExperimentPlanner.static_estimate_VRAM_usage((64, 64), 1, 3, name, network, classes)
    print(f"{get_allowed_n_proc_DA()} workers: planned, feature maps of {size} values")
except RuntimeError as error:
    print(f"{get_allowed_n_proc_DA()} workers: RuntimeError: {error}")
PYTHON
seen=$(for workers in 1 0; do nnUNet_n_proc_DA=$workers "$folder/venv/bin/python" -W ignore "$folder/plan.py" 2> "$folder/log" | tail -1; done)
echo "$seen"
[ "$(echo "$seen" | sed 's/of [0-9]* values/of N values/')" = "1 workers: planned, feature maps of N values
0 workers: RuntimeError: set_num_threads expects a positive integer" ]
