"""The MONAI Model Zoo's own checks of a bundle: files, metadata, the network's input and output, TorchScript."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from torch import nn

from tests.bundles.standalone import (
    BUNDLE,
    IMAGE_SIZE,
    LABELS,
    NEIGHBOURS,
    PATCHES,
    deep_student,
    diffusion_run,
    lite_student,
    ship,
    student,
)
from tskd.export.exporter import export_network
from tskd.export.ship import ship_teacher
from tskd.networks import build_sam
from tskd.networks.bundle_imports import bundle_imports
from tskd.state import save_weights
from tskd.workflow.ship_diffusion import ship_diffusion

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


def test_the_bundle_as_it_is_here_is_verified() -> None:
    verify_net_in_out(**_arguments(BUNDLES / "student_segmentation"), device="cpu")


SEVERAL = {"neighbours": NEIGHBOURS, "patches": PATCHES}
NETWORKS: dict[str, Any] = {
    "unetr": student,
    "lite": lite_student,
    "neighbours": lambda: lite_student(3),
    "patches": deep_student,
}


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def shipped(network: str, tmp_path: Path) -> Path:
    """A shipped student: a network of MONAI's, one that the bundle carries, and those that see several slices."""
    return ship(tmp_path, "nii.gz", lite=network == "lite", several=SEVERAL.get(network))


def test_a_shipped_student_is_verified_in_full(shipped: Path, network: str, tmp_path: Path) -> None:
    """The properties that the zoo asks of a bundle before it is taken, without exceptions."""
    assert not [name for name in (*FILES, "models/model.pt") if not (shipped / name).is_file()]
    metadata = _json(shipped / "configs/metadata.json")
    assert metadata["version"] in metadata["changelog"]
    _verify_metadata(shipped, tmp_path)
    reference: nn.Module = NETWORKS[network]()
    shape = {"neighbours": (3, IMAGE_SIZE, IMAGE_SIZE), "patches": (1, IMAGE_SIZE, IMAGE_SIZE, 8)}
    x, files = torch.rand(2, *shape.get(network, (1, IMAGE_SIZE, IMAGE_SIZE))), _arguments(shipped)
    image = metadata["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], *image["spatial_shape"]) == x.shape[1:]
    exported = {name: shipped / f"models/{name}.ts" for name in ("verify_model", "model")}
    with bundle_imports(shipped):  # the zoo's script puts the bundle's folder on the search path of modules
        workflow = ConfigWorkflow(
            files["config_file"], files["meta_file"], workflow_type="inference", bundle_root=str(shipped)
        )
        workflow.initialize()
        assert not workflow.check_properties()
        verify_net_in_out(**files, device="cpu")
        export_network(shipped, "torchscript")
    _script(shipped, exported["verify_model"])
    with torch.no_grad():
        for file in exported.values():
            torch.testing.assert_close(torch.jit.load(file)(x), reference(x), atol=1e-5, rtol=1e-5)


def _script(bundle: Path, file: Path) -> None:
    """MONAI's `ckpt_export`, as the zoo's script starts it: in a process of its own.

    torch.jit.script takes an attribute for an operator if it has the address of one that was registered and freed,
    which happens in a process that has done much else.
    """
    options = {**_arguments(bundle), "filepath": str(file), "ckpt_file": str(bundle / "models/model.pt")}
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "ckpt_export"]
    command += [part for key, value in options.items() for part in (f"--{key}", value)]
    environment = {**os.environ, "PYTHONPATH": str(bundle), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The ci/ of a checkout of the Model Zoo."""
    named = os.environ.get("TSKD_MODEL_ZOO")
    if not named:
        pytest.skip("needs a checkout of https://github.com/Project-MONAI/model-zoo: name it with TSKD_MODEL_ZOO")
    folder = Path(named).resolve() / "ci"
    assert (folder / "verify_bundle.py").is_file(), f"TSKD_MODEL_ZOO={named}: no ci/verify_bundle.py in it"
    return folder


def _verify_as_the_zoo(zoo: Path, shipped: Path, folder: Path, *exceptions: str) -> str:
    """What ci/verify_bundle.py says, mode full, with a bundle in the lists of exceptions that the zoo keeps."""
    bundle = folder / "models" / shipped.name
    shutil.copytree(shipped, bundle)
    (folder / "models/model_info.json").write_text("{}")
    (bundle / "eval").mkdir()
    (bundle / "eval/schema.json").write_text(json.dumps(SCHEMA))  # the zoo's CI downloads it before
    shutil.copytree(zoo, folder / "ci")
    with (folder / "ci/bundle_custom_data.py").open("a") as file:
        file.writelines(f"exclude_verify_{name}_list.append({shipped.name!r})\n" for name in exceptions)
    command = [sys.executable, "-W", "ignore", "ci/verify_bundle.py", "-b", shipped.name, "-p", "models", "-m", "full"]
    package = str(BUNDLES.parent / "common") if exceptions else ""  # the others need this project
    environment = {**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "metadata format is verified correctly" in done.stdout
    return done.stdout


def test_the_zoos_own_script_takes_a_shipped_student(zoo: Path, shipped: Path, tmp_path: Path) -> None:
    said = _verify_as_the_zoo(zoo, shipped, tmp_path)
    assert "data shape is verified correctly" in said
    assert "export weights into TorchScript module successfully" in said


def test_the_zoos_own_script_takes_a_shipped_teacher(zoo: Path, tmp_path: Path) -> None:
    """Its network does not script."""
    ship(tmp_path / "toy", "nii.gz")  # for its dataset.json
    size, data = 64, tmp_path / "toy/dataset.json"
    save_weights(build_sam("mobile_sam", len(LABELS), size).eval(), tmp_path / "weights.pt")
    teacher = ship_teacher(BUNDLE, tmp_path / "weights.pt", tmp_path / "teacher_segmentation", data, size, "mobile_sam")
    assert "data shape is verified correctly" in _verify_as_the_zoo(zoo, teacher, tmp_path, "torchscript")


def test_the_zoos_own_script_takes_a_shipped_diffusion_model(zoo: Path, tmp_path: Path) -> None:
    """Its network takes two tensors."""
    ship(tmp_path / "toy", "png", 3)
    run, data = diffusion_run(tmp_path / "toy"), tmp_path / "toy/dataset.json"
    shipped = ship_diffusion(BUNDLES / "ddpm_synthesis", run, tmp_path / "synthesis", data)
    _verify_as_the_zoo(zoo, shipped, tmp_path, "shape", "torchscript")


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
