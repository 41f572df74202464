"""Write an application folder for MONAI Deploy around a shipped bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tskd.errors import TskdError
from tskd.export.exporter import pytorch_network
from tskd.export.network_files import write_torchscript
from tskd.export.new_folder import new_folder
from tskd.export.readme_section import EXPORTED, replace_section
from tskd.files import write_json
from tskd.predict.organ_codes import code_of, read_codes
from tskd.predict.shipped_bundle import ShippedBundle

SDK = "4.0.0"
_APP = Path(__file__).with_name("deploy_app.py")
_REQUIREMENTS = f"""monai-deploy-app-sdk=={SDK}
# its holoscan-cu13 brings CUDA packages; README.md says how to do without
torch==2.13.0
monai[fire,ignite,nibabel]==1.6.1
einops
scikit-image
highdicom>=0.22
pydicom>=3
"""
_README = """# {name}

DICOM in, DICOM Segmentation out, with MONAI Deploy App SDK {sdk}. Research use only.

```bash
pip install -r requirements.txt
python app.py --input DICOM_FOLDER --output masks --model model/model.ts
```

One series is segmented: of those that `rules.json` matches (modality {modality}, no localizer) the one with the most
instances, to which the object written refers. Structures and their codes are in `codes.json`.

On a computer without CUDA, the runtime of the SDK does without its CUDA packages:

```bash
pip install torch==2.13.0 'monai[fire,ignite,nibabel]==1.6.1' einops scikit-image 'highdicom>=0.22' 'pydicom>=3' \\
    SimpleITK typeguard colorama pyyaml cloudpickle 'wheel-axle-runtime<1.0' 'tritonclient[http,grpc]'
pip install --no-deps monai-deploy-app-sdk=={sdk} holoscan-cu13 holoscan-cli
```

As a container (needs Docker and network; not tried):

```bash
monai-deploy package . --config app.yaml --tag {tag}:{version} --platform x86_64 --models model
```
"""


def write_deploy(bundle: ShippedBundle, output: str | Path, codes: str | Path | None = None) -> Path:
    """Write app.py, app.yaml, codes.json, rules.json, requirements.txt, README.md and the network as TorchScript.

    Args:
        bundle: of volumes.
        output: new folder.
        codes: the user's table of codes, as for `tskd predict`.

    Returns:
        The folder.

    Raises:
        TskdError: a bundle of pictures, or a folder that is there.
    """
    if bundle.pictures:
        raise TskdError(
            f"{bundle.root}: expected a bundle of volumes, which come as DICOM series, found one of 2-D images. Serve "
            "it with MONAI Label, or use `tskd predict`."
        )
    metadata = json.loads((bundle.root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    modality = metadata["network_data_format"]["inputs"]["image"].get("modality", "")
    user_codes = None if codes is None else read_codes(codes)
    coded = {name: code_of(name, user_codes) for _, name in sorted(bundle.structures.items())}
    with new_folder(output) as draft:
        (draft / "model").mkdir()
        write_torchscript(pytorch_network(bundle), bundle, draft / "model" / "model.ts")
        for name in ("LICENSE", "docs/README.md", "docs/data_license.txt"):
            if (bundle.root / name).is_file():
                (draft / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(bundle.root / name, draft / name)
        here = "In this application only `model/model.ts`, TorchScript; the bundle that it was made of may have more."
        replace_section(draft / "docs" / "README.md", EXPORTED, here)
        shutil.copyfile(_APP, draft / "app.py")
        write_json(
            draft / "codes.json",
            {
                "algorithm": bundle.name[:64],
                "version": bundle.version,
                "structures": [
                    {"name": name[:64], "category": list(category), "type": list(code)}
                    for name, (category, code) in coded.items()
                ],
            },
        )
        write_json(draft / "rules.json", _rules(modality))
        (draft / "requirements.txt").write_text(_REQUIREMENTS, encoding="utf-8")
        tag = bundle.root.name.lower()
        (draft / "app.yaml").write_text(_yaml(bundle, tag), encoding="utf-8")
        (draft / "README.md").write_text(
            _README.format(name=bundle.name, sdk=SDK, modality=modality or "any", tag=tag, version=bundle.version),
            encoding="utf-8",
        )
    return Path(output)


def _rules(modality: str) -> dict[str, object]:
    """Return selection rules: no localizer, and the modality where DICOM has a code for it.

    A series without an attribute that a rule names is passed over; these two are in every CT and MR image.
    """
    conditions: dict[str, object] = {"ImageType": ["!LOCALIZER"]}
    if modality in ("CT", "MR", "US", "PT", "NM", "XA", "MG"):
        conditions["Modality"] = f"(?i)^{modality}$"
    return {"selections": [{"name": "images", "conditions": conditions}]}


def _yaml(bundle: ShippedBundle, tag: str) -> str:
    return (
        f'%YAML 1.2\n---\napplication:\n  title: "{tag}"\n  version: "{bundle.version}"\n  inputFormats: ["file"]\n'
        '  outputFormats: ["file"]\n\nresources:\n  cpu: 1\n  gpu: 0\n  memory: 4Gi\n'
    )
