"""Write a shipped bundle as a folder that MONAI Label's app or the Hugging Face hub takes as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from tskd.errors import TskdError
from tskd.export.new_folder import new_folder
from tskd.predict.shipped_bundle import ShippedBundle

LABEL_PACKAGES = ("monailabel==0.8.5", "monai==1.6.1", "pydicom<3", "einops", "scikit-image")
_IGNORED = shutil.ignore_patterns("__pycache__", ".*")
_START = """#!/bin/sh
# Serves {name} to 3D Slicer and OHIF. Usage: sh start.sh STUDIES [PORT], where the packages of requirements.txt are.
# STUDIES is the folder of images, or the address of a DICOMweb server.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
app=$here/app/monaibundle
if [ ! -d "$app" ]; then
    monailabel apps --download --name monaibundle --output "$here/app"
    cp -R "$here/model" "$app/model"
fi
# the last two settings avoid downloads at the start
exec monailabel start_server --app "$app" --studies "$1" --port "${{2:-8000}}" --conf models {name} \\
    --conf zoo_source ngc --conf sam2 false
"""
_LABEL_README = """# {title}

For MONAI Label 0.8.5. Research use only.

```bash
python3 -m venv label && label/bin/pip install -r requirements.txt
PATH=$PWD/label/bin:$PATH sh start.sh STUDIES
```

`start.sh` copies MONAI Label's app `monaibundle` to `app/` and the model into it. In 3D Slicer, install the extension
MONAILabel and enter http://localhost:8000. Train, in the same window, starts from the model's weights;
`app/monaibundle/model/{name}/models/` has the new ones.
"""


def write_label(bundle: ShippedBundle, output: str | Path) -> Path:
    """Write model/NAME_segmentation, requirements.txt, start.sh and README.md.

    Args:
        bundle: shipped bundle.
        output: new folder.

    Returns:
        The folder.

    Raises:
        TskdError: a folder that is there.
    """
    name = bundle.root.resolve().name
    name = name if "segmentation" in name.lower() else f"{name}_segmentation"
    with new_folder(output) as draft:
        shutil.copytree(bundle.root, draft / "model" / name, ignore=_IGNORED)
        (draft / "requirements.txt").write_text("\n".join(LABEL_PACKAGES) + "\n", encoding="utf-8")
        (draft / "start.sh").write_text(_START.format(name=name), encoding="utf-8")
        (draft / "README.md").write_text(_LABEL_README.format(title=bundle.name, name=name), encoding="utf-8")
    return Path(output)


def write_huggingface(bundle: ShippedBundle, output: str | Path) -> Path:
    """Write a copy of the bundle whose model card lies where the Hugging Face hub looks for it.

    `monai.bundle push_to_hf_hub` makes a card of docs/README.md and puts a head of its own before it, with a licence
    that it guesses; the hub would not see ours. Without docs/README.md it uploads README.md as it is.

    Args:
        bundle: shipped bundle.
        output: new folder.

    Returns:
        The folder.

    Raises:
        TskdError: a folder that is there, or a bundle without a model card.
    """
    card = bundle.root / "docs" / "README.md"
    if not card.is_file() or not card.read_text(encoding="utf-8").startswith("---\n"):
        raise TskdError(f"{card}: expected the model card that `tskd ship` writes, found none. Ship the run again.")
    with new_folder(output) as draft:
        shutil.copytree(bundle.root, draft, ignore=_IGNORED, dirs_exist_ok=True)
        text = (draft / "docs" / "README.md").read_text(encoding="utf-8")
        (draft / "docs" / "README.md").unlink()
        text = text.replace("](data_license.txt)", "](docs/data_license.txt)").replace("](../configs/", "](configs/")
        (draft / "README.md").write_text(text, encoding="utf-8")
    return Path(output)
