#!/bin/sh
# Makes a virtual environment with the MONAI Label 0.8.5 server and MONAI 1.6.1.
# Usage: install.sh VENV [PYTHON]        (3 minutes, 3 GB on disk with the CPU build of torch)
#
# An environment of its own, because MONAI Label needs pydicom 2 and the project pydicom 3. MONAI Label is installed
# without its dependencies: they would bring SAM 2 and, with torchvision, a CUDA build of torch in the place of a CPU
# build. Those that the server imports are named here.
set -eu
venv=$1
"${2:-python3}" -m venv "$venv"
cat > "$venv/constraints.txt" <<'EOF'
torch==2.13.0
monai==1.6.1
pydicom<3
EOF
install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
with_dependencies() { install --constraint "$venv/constraints.txt" "$@"; }
with_dependencies torch numpy
with_dependencies 'monai[fire,ignite,nibabel,jsonschema]' einops pillow tensorboard
with_dependencies bcrypt cachetools 'dicomweb-client<0.61' expiring_dict expiringdict fastapi girder-client httpx itk \
    mlflow passlib psutil pydantic-settings pydicom pyjwt 'pynetdicom<3' pynrrd python-dotenv python-multipart pyyaml \
    requests requests-toolbelt schedule scikit-image shapely SimpleITK timeloop uvicorn watchdog
install --no-deps 'monailabel==0.8.5' 'torchvision==0.28.0' 'pydicom-seg==0.4.1'

if ! "$venv/bin/python" -c 'import torchvision' 2>/dev/null; then
    # torchvision for CUDA beside torch for the CPU: its compiled part cannot load, and MONAI Label uses only its Python
    # part. Its import asks for two operators to be declared, which is done when the interpreter first imports it.
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    cat > "$site/torchvision_on_cpu.py" <<'EOF'
import importlib.abc
import sys


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            sys._torchvision_operators = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                sys._torchvision_operators.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
        return None


sys.meta_path.insert(0, _Finder())
EOF
    echo 'import torchvision_on_cpu' > "$site/torchvision_on_cpu.pth"
fi
"$venv/bin/python" -W ignore -c 'import monailabel.tasks.infer.bundle, monailabel.app'
