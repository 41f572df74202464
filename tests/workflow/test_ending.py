"""A study's bundle has its network as ONNX, too, where that can be; where not, a line says why."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests import forked
from tests.bundles.standalone import BUNDLE, IMAGE_SIZE, LABELS, ship, write_volumes
from tskd.data import load_volume, write_volume
from tskd.export.ship import ship_run
from tskd.files import sha256
from tskd.workflow import ending

pytestmark = pytest.mark.process


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run, and volumes with labels in the validation list of its data set; its bundle is `bundle`."""
    ship(tmp_path, "nii.gz")
    folder, file = tmp_path / "run", tmp_path / "dataset.json"
    (folder / "models").mkdir(parents=True)
    (tmp_path / "weights.pt").rename(folder / "models/model.pt")
    data, volume = json.loads(file.read_text()), write_volumes(tmp_path)[0]
    array, affine = load_volume(volume)
    write_volume(tmp_path / "label.nii.gz", (array > np.median(array)).astype(np.uint8), affine)
    data["validation"] = []
    for k in range(5):
        names = {"image": f"v{k}.nii.gz", "label": f"v{k}_label.nii.gz"}
        shutil.copyfile(volume, tmp_path / names["image"])
        shutil.copyfile(tmp_path / "label.nii.gz", tmp_path / names["label"])
        data["validation"].append({**names, "group": f"v{k}", "case": f"v{k}"})
    file.write_text(json.dumps(data))
    made = {"settings": {"image_size": IMAGE_SIZE, "dataset_file": str(file)}, "config": ["train.json"]}
    (folder / "versions.json").write_text(json.dumps(made))
    return folder


@pytest.fixture
def bundle(run: Path, tmp_path: Path) -> Path:
    return ship_run(BUNDLE, run, tmp_path / "a_segmentation", tmp_path / "dataset.json", force=True)


def _write(bundle: Path, run: Path) -> str:
    return ending._write_onnx(bundle, run, forked.environment())


def test_the_network_is_written_once_and_compared_on_some_images(bundle: Path, run: Path) -> None:
    assert _write(bundle, run) == ""
    file = bundle / "models/model.onnx"
    metadata = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert metadata["model_sha256"] == sha256(bundle / "models/model.pt")
    compared = json.loads((bundle / "configs/metadata.json").read_text())["exported"]["models/model.onnx"]["compared"]
    assert "on 3 validation images" in compared
    rows = list(csv.DictReader((bundle / "models/exported_onnx.csv").read_text().splitlines()))
    assert len(rows) == 3 * (len(LABELS) - 1)
    assert {row["patient"] for row in rows} == {"v0", "v2", "v4"}
    assert "models/model.onnx` (onnx)" in (bundle / "docs/README.md").read_text()
    written = file.stat().st_mtime_ns
    assert _write(bundle, run) == ""
    assert file.stat().st_mtime_ns == written


def test_a_network_that_cannot_be_written_costs_a_line(bundle: Path, run: Path) -> None:
    path = bundle / "configs/inference.json"
    path.write_text(path.read_text().replace('"axcodes": "LPS"', '"axcodes": "RAS"'))
    before = {file: file.read_bytes() for file in bundle.rglob("*") if file.is_file()}
    said = _write(bundle, run)
    assert "Orientationd(axcodes=RAS)" in said
    assert "\n" not in said
    assert {file: file.read_bytes() for file in bundle.rglob("*") if file.is_file()} == before


def test_what_is_missing_is_named(bundle: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle.parent / "dataset.json").unlink()
    assert "expected the dataset.json of the training" in _write(bundle, run)
    monkeypatch.setattr(ending, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert _write(bundle, run) == "pip install onnxruntime, and run this again"
    assert not (bundle / "models/model.onnx").exists()
