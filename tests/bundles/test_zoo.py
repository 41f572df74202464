"""The MONAI Model Zoo's own checks of a bundle: files, metadata, the network's input and output, TorchScript."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ckpt_export, verify_metadata, verify_net_in_out

from tests.bundles.standalone import IMAGE_SIZE, ship, student
from tskd.networks import build_sam
from tskd.state import save_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:No hash value provided"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
FILES = ("LICENSE", "configs/inference.json", "configs/train.json", "configs/logging.conf", "docs/README.md")
TENSOR = {
    "type": "object",
    "properties": {
        **{key: {"type": "string"} for key in ("type", "format", "dtype", "modality")},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
}
TEXTS = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors")
SCHEMA = {  # the requirements of meta_schema_20240725.json, which metadata.json names and the zoo downloads
    "type": "object",
    "properties": {
        **{key: {"type": "string", "minLength": 1} for key in (*TEXTS, "copyright", "data_type", "intended_use")},
        **{key: {"type": "object"} for key in ("changelog", "required_packages_version")},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "properties": {
                key: {"type": "object", "patternProperties": {".+": TENSOR}} for key in ("inputs", "outputs")
            },
            "required": ["inputs", "outputs"],
        },
    },
    "required": [*TEXTS, "copyright", "changelog", "required_packages_version", "network_data_format"],
}


@pytest.fixture(params=sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json")))
def bundle(request: pytest.FixtureRequest) -> Path:
    return BUNDLES / request.param


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_files_and_metadata(bundle: Path, tmp_path: Path) -> None:
    assert not [name for name in FILES if not (bundle / name).is_file()]
    _verify_metadata(bundle, tmp_path)
    metadata = _json(bundle / "configs/metadata.json")
    assert metadata["version"] in metadata["changelog"]
    assert metadata["schema"].endswith("meta_schema_20240725.json")


def _verify_metadata(bundle: Path, folder: Path) -> None:
    schema = folder / "schema.json"  # MONAI downloads nothing where the file is there
    schema.write_text(json.dumps(SCHEMA))
    verify_metadata(meta_file=str(bundle / "configs/metadata.json"), filepath=str(schema))


def _arguments(bundle: Path) -> dict[str, str]:
    configs = bundle / "configs"
    return {
        "net_id": "network_def",
        "meta_file": str(configs / "metadata.json"),
        "config_file": str(configs / "inference.json"),
        "bundle_root": str(bundle),
    }


def test_student_is_verified_and_exported_to_torchscript(tmp_path: Path) -> None:
    verify_net_in_out(**_arguments(BUNDLES / "student_segmentation"), device="cpu")
    bundle = ship(tmp_path, "nii.gz")
    _verify_metadata(bundle, tmp_path)
    verify_net_in_out(**_arguments(bundle), device="cpu")
    exported = bundle / "models/verify_model.ts"
    ckpt_export(**_arguments(bundle), filepath=str(exported), ckpt_file=str(bundle / "models/model.pt"))
    x = torch.rand(2, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(exported)(x), student()(x), atol=1e-5, rtol=1e-5)


def test_teacher_is_verified_and_exported_by_tracing(tmp_path: Path) -> None:
    bundle = tmp_path / "teacher_segmentation"
    shutil.copytree(BUNDLES / "teacher_segmentation/configs", bundle / "configs")
    metadata = _json(bundle / "configs/metadata.json")
    for tensor in ("inputs", "image"), ("outputs", "pred"):
        metadata["network_data_format"][tensor[0]][tensor[1]]["spatial_shape"] = [IMAGE_SIZE, IMAGE_SIZE]
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata))
    small = {**_arguments(bundle), "vfm": "mobile_sam", "image_size": IMAGE_SIZE}
    verify_net_in_out(**small, device="cpu")
    torch.manual_seed(0)
    network = build_sam("mobile_sam", metadata["network_data_format"]["outputs"]["pred"]["num_channels"], IMAGE_SIZE)
    save_weights(network.eval(), bundle / "models/model.pt")
    exported = bundle / "models/verify_model.ts"
    ckpt_export(**small, filepath=str(exported), ckpt_file=str(bundle / "models/model.pt"), use_trace=True)
    x = torch.rand(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(exported)(x), network(x), atol=1e-5, rtol=1e-5)
