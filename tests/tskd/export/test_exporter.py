"""Exported networks give PyTorch's masks, say what they were made of, and are refused where an organ loses too much."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bundles.standalone import IMAGE_SIZE, LABELS, ship, student
from tskd.data import datalist, virtual_patient, write_slices, write_volume
from tskd.errors import TskdError
from tskd.export.exporter import export_network
from tskd.export.verify_export import ExportComparison, calibration_images, check
from tskd.files import sha256
from tskd.predict.onnx_backend import OnnxBackend
from tskd.predict.shipped_bundle import read_bundle

pytestmark = pytest.mark.bundle

pytest.importorskip("onnx", reason="needs onnx, an optional dependency")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset.json with training slices and one validation volume."""
    folder = tmp_path_factory.mktemp("data")
    image, label, affine = virtual_patient(seed=5, number=0, image_size=48, num_slices=3)
    scaled = (image / image.max()).astype(np.float32)
    training = write_slices(folder, "p", scaled, np.minimum(label, 3).astype(np.uint8))
    write_volume(folder / "v.nii.gz", image, affine)
    write_volume(folder / "v_label.nii.gz", np.minimum(label, 3).astype(np.uint8), affine)
    entry = {"image": "v.nii.gz", "label": "v_label.nii.gz", "group": "v", "case": "v"}
    header = {"name": "toy", "modality": "MR", "channels": 1, "labels": LABELS, "provenance": {}}
    lists = {"training": training, "unlabelled": [], "validation": [entry], "test": []}
    datalist.write(folder / "dataset.json", {**header, **lists})
    return folder / "dataset.json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship(tmp_path_factory.mktemp("bundle"), "nii.gz")


def test_onnx_gives_the_masks_of_pytorch(bundle: Path, data: Path) -> None:
    said = export_network(bundle, "onnx", data)
    assert "worst organ" in said
    rows = list(csv.DictReader((bundle / "models/exported_onnx.csv").read_text().splitlines()))
    assert {row["organ"] for row in rows} == {name for index, name in LABELS.items() if index != "0"}
    with pytest.raises(TskdError, match="--overwrite"):
        export_network(bundle, "onnx", data)
    named = json.loads((bundle / "configs/metadata.json").read_text())["exported"]["models/model.onnx"]
    assert named["sha256"] == sha256(bundle / "models/model.onnx")
    readme = (bundle / "docs/README.md").read_text()
    assert f"- `models/model.onnx` (onnx): {named['compared']}." in readme
    assert readme.index("## Other formats") < readme.index("models/model.onnx` (onnx)") < readme.index("## Accuracy")
    backend = OnnxBackend(read_bundle(bundle))
    metadata = backend.session.get_modelmeta().custom_metadata_map
    assert metadata["model_sha256"] == sha256(bundle / "models/model.pt")
    assert json.loads(metadata["labels"]) == LABELS
    assert metadata["image_size"] == str(IMAGE_SIZE)
    image = torch.rand(5, 1, IMAGE_SIZE, IMAGE_SIZE)  # another batch than it was traced with
    with torch.no_grad():
        expected = student()(image).numpy()
    np.testing.assert_allclose(backend.pipeline.network(image.numpy()), expected, atol=1e-4)


def test_weights_that_changed_since_are_noticed(tmp_path: Path) -> None:
    bundle = ship(tmp_path, "nii.gz", lite=True)
    export_network(bundle, "onnx")
    state = torch.load(bundle / "models/model.pt", weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, bundle / "models/model.pt")
    with pytest.raises(TskdError, match="other ones"):
        OnnxBackend(read_bundle(bundle))


def test_torchscript_carries_its_configuration(bundle: Path, data: Path) -> None:
    export_network(bundle, "torchscript", data)
    extra = {"inference.json": "", "tskd.json": ""}
    torch.jit.load(str(bundle / "models/model.ts"), _extra_files=extra)
    assert json.loads(extra["inference.json"])["image_size"] == IMAGE_SIZE
    assert json.loads(extra["tskd.json"])["model_sha256"] == sha256(bundle / "models/model.pt")


def test_int8_is_kept_or_refused_by_its_worst_organ(bundle: Path, tmp_path: Path, data: Path) -> None:
    with pytest.raises(TskdError, match="--dataset-file"):
        export_network(bundle, "onnx-int8")
    lite = ship(tmp_path, "nii.gz", lite=True)  # a transformer takes ONNX Runtime five times as long
    with pytest.raises(TskdError, match="lose"):
        export_network(lite, "onnx-int8", data, tolerance=-1.0)
    assert [path.name for path in (lite / "models").iterdir() if "int8" in path.name or path.name[0] == "."] == []
    export_network(bundle, "onnx-int8", data, tolerance=1.0)
    sizes = [(bundle / "models" / name).stat().st_size for name in ("model_int8.onnx", "model.pt")]
    assert sizes[0] < 0.5 * sizes[1]


def test_calibration_sees_training_images_as_the_network_does(bundle: Path, data: Path) -> None:
    images = list(calibration_images(read_bundle(bundle), data))
    assert len(images) == len(datalist.read(data)["training"])
    assert all(image.shape == (1, 1, IMAGE_SIZE, IMAGE_SIZE) and image.dtype == np.float32 for image in images)
    assert max(image.max() for image in images) <= 1


def test_the_worst_organ_counts_and_not_the_mean() -> None:
    rows = [{"patient": "a", "organ": f"organ {k}", "disagreement": 0.0, "lost": 0.02 * (k == 7)} for k in range(20)]
    comparison = ExportComparison(0.0, rows, (1.0, 1.0))
    assert comparison.worst == ("organ 7", 0.02)
    with pytest.raises(TskdError, match="organ 7"):
        check(comparison, "onnx-int8")
