#!/bin/sh
# Makes a virtual environment with nnU-Net 2.8.1 beside the CPU build of torch.
# Usage: install.sh VENV [PYTHON]        (2 minutes, 2 GB on disk with the CPU build of torch)
#
# An environment of its own, because nnU-Net's networks ask for timm and, through it, for torchvision, which would bring a
# CUDA build of torch in the place of a CPU build. nnU-Net and its siblings are installed without their dependencies; those
# that its 2-D configuration imports are named here.
set -eu
venv=$1
"${2:-python3}" -m venv "$venv"
cat > "$venv/constraints.txt" <<'EOF'
torch==2.13.0
EOF
install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
with_dependencies() { install --constraint "$venv/constraints.txt" "$@"; }
with_dependencies torch numpy
with_dependencies blosc2 connected-components-3d einops future imagecodecs matplotlib nibabel pandas pillow requests \
    scikit-image scikit-learn scipy seaborn setuptools SimpleITK threadpoolctl tifffile tqdm yacs graphviz fft-conv-pytorch
install --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 acvl-utils==0.2.6 batchgenerators==0.25.5 \
    batchgeneratorsv2==0.3.6
"$venv/bin/python" -W ignore -c 'import nnunetv2.run.run_training, nnunetv2.inference.predict_from_raw_data'
