"""MONAI Label gives the masks that `monai.bundle run` gives, voxel by voxel, in-process and over REST; its Train works.

Needs an interpreter with MONAI Label 0.8.5, which wants another pydicom than the project: `make label-demo` makes one
in .venv-label and runs this file; TSKD_LABEL_PYTHON names another.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.bundles.standalone import (
    LABELS,
    NEIGHBOURS,
    PATCHES,
    run_alone,
    segmentation,
    ship,
    write_picture,
    write_volumes,
)
from tests.bundles.test_train_further import write_pairs
from tskd.data import virtual_patient
from tskd.data.phantom.dicom_writer import write_series
from tskd.predict.predict_files import predict

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "volumes": ("nii.gz", 1),
    "neighbours": ("nii.gz", 1),
    "patches": ("nii.gz", 1),
    "grey": ("png", 1),
    "colour": ("png", 3),
    "lite": ("png", 3),
}
SEVERAL = {"neighbours": NEIGHBOURS, "patches": PATCHES}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def label_python() -> Path:
    """Interpreter with MONAI Label."""
    named = os.environ.get("TSKD_LABEL_PYTHON")
    python = Path(named).absolute() if named else ROOT / ".venv-label/bin/python"
    if not python.exists():
        assert not named, f"TSKD_LABEL_PYTHON={named}: no such file"
        pytest.skip(f"needs MONAI Label: no {python}. `make label-demo` installs it, or set TSKD_LABEL_PYTHON")
    return python


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, label_python: Path) -> Path:
    """Folders of KINDS (lite: a network in scripts/), with bundle, images/ and the masks of `monai.bundle run`."""
    root = tmp_path_factory.mktemp("label")
    runs = []
    for name, (kind, in_channels) in KINDS.items():
        images = root / name / "images"
        images.mkdir(parents=True)
        if kind == "nii.gz":
            write_volumes(images)
        else:
            write_picture(images, in_channels)
        bundle = ship(root / name, kind, in_channels, name == "lite", SEVERAL.get(name))
        runs.append(segmentation(bundle, images, root / name / "masks"))
    for done in run_alone(*runs, cwd=root):
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return root


def _assert_same_masks(folder: Path, output: Path) -> None:
    for path in sorted((folder / "images").iterdir()):
        stem, _, kind = path.name.partition(".")
        expected, found = folder / "masks" / f"{stem}_seg.{kind}", output / path.name
        if kind == "png":
            one, two = np.asarray(Image.open(expected)), np.asarray(Image.open(found))
        else:
            image, mask = nib.load(path), nib.load(found)
            np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
            one, two = np.asarray(nib.load(expected).dataobj), np.asarray(mask.dataobj)
        assert len(np.unique(one)) > 2
        assert one.dtype == two.dtype == np.uint8
        np.testing.assert_array_equal(one, two)
        print(f"{folder.name}/{path.name}: {one.shape}, {one.size} voxels, none differs")


@pytest.mark.parametrize("name", list(KINDS))
def test_in_process(root: Path, label_python: Path, tmp_path: Path, name: str) -> None:
    images = [str(path) for path in sorted((root / name / "images").iterdir())]
    command = [str(label_python), str(ROOT / "tests/label/predict.py"), str(root / name / "student_segmentation")]
    done = subprocess.run(
        [*command, str(tmp_path), *images], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "keys don't match" not in done.stdout + done.stderr
    offered = json.loads(done.stdout.splitlines()[-1])
    assert offered == {label: int(index) for index, label in LABELS.items() if label != "background"}
    _assert_same_masks(root / name, tmp_path)


class Server(NamedTuple):
    """A MONAI Label server: name of the case, address, folder of the bundle that it serves."""

    name: str
    address: str
    bundle: Path


@pytest.fixture(scope="module", params=["volumes", "grey"])
def server(
    request: pytest.FixtureRequest, root: Path, label_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A MONAI Label server with one bundle, its images, and three labelled volumes or six labelled pictures."""
    apps, tmp_path = label_python.parents[1] / "monailabel/sample-apps", tmp_path_factory.mktemp("server")
    shutil.copytree(apps / "monaibundle", tmp_path / "app")
    bundle = tmp_path / "app/model/student_segmentation"
    shutil.copytree(root / request.param / "student_segmentation", bundle)
    shutil.copytree(root / request.param / "images", tmp_path / "studies")
    write_pairs(tmp_path / "pairs", KINDS[request.param][0])
    shutil.copytree(tmp_path / "pairs/images", tmp_path / "studies", dirs_exist_ok=True)
    shutil.copytree(tmp_path / "pairs/labels", tmp_path / "studies/labels/final")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(label_python), "-m", "monailabel.main", "start_server", "--app", str(tmp_path / "app"),
        "--studies", str(tmp_path / "studies"), "--host", "127.0.0.1", "--port", str(port),
        "--conf", "models", "student_segmentation", "--conf", "zoo_source", "ngc", "--conf", "sam2", "false",
    ]  # fmt: skip
    log = tmp_path / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=ENVIRONMENT, cwd=tmp_path)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, process, log)
        yield Server(request.param, address, bundle)
    finally:
        process.terminate()
        process.wait(30)
    assert "keys don't match" not in log.read_text()


def _wait(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(120):
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(f"{address}/info/", timeout=10) as answer:
                assert "student_segmentation" in json.load(answer)["models"]
                return
        except urllib.error.URLError:
            time.sleep(1)
    raise AssertionError(f"{address} does not answer: {log.read_text()[-4000:]}")


def _post(address: str, body: dict[str, Any] | None = None, **form: str) -> bytes:
    """What the server answers to a JSON body, or to the fields of a form."""
    content = None if body is None else json.dumps(body).encode()
    content = urllib.parse.urlencode(form).encode() if form else content
    kind = "application/x-www-form-urlencoded" if form else "application/json"
    request = urllib.request.Request(address, content, {"Content-Type": kind}, method="POST")
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert answer.status == 200
        return answer.read()


def test_over_rest(root: Path, server: Server, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    for path in (root / server.name / "images").iterdir():
        query = f"{server.address}/infer/student_segmentation?image={path.name.partition('.')[0]}"
        (output / path.name).write_bytes(_post(f"{query}&output=image"))
        assert json.loads(_post(f"{query}&output=json"))["label_names"]
        assert b"Content-Disposition" in _post(f"{query}&output=all")
    _assert_same_masks(root / server.name, output)


def test_a_dicom_series_over_rest(root: Path, server: Server, tmp_path: Path) -> None:
    """The folder of a series gives the mask that the same voxels have in `tskd predict`, in the same place."""
    if server.name != "volumes":
        return
    image, _, affine = virtual_patient(seed=5, number=0, image_size=40, num_slices=4)
    write_series(tmp_path / "series", image.astype(np.int16), affine, "p1", "label", file_order=[2, 0, 3, 1])
    assert predict(root / "volumes/student_segmentation", [tmp_path / "series"], tmp_path / "masks") == 0
    expected = nib.as_closest_canonical(nib.load(next((tmp_path / "masks").glob("*.nii.gz"))))
    query = f"{server.address}/infer/student_segmentation?image={urllib.parse.quote(str(tmp_path / 'series'))}"
    (tmp_path / "mask.nii.gz").write_bytes(_post(f"{query}&output=image"))
    found = nib.as_closest_canonical(nib.load(tmp_path / "mask.nii.gz"))
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-3)
    assert len(np.unique(expected.dataobj)) > 2
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))


def test_options_and_colours_over_rest(root: Path, server: Server, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{server.address}/info/", timeout=60) as answer:
        model = json.load(answer)["models"]["student_segmentation"]
    assert list(model["config"]["label_colors"]) == list(model["labels"])
    assert len({tuple(colour) for colour in model["config"]["label_colors"].values()}) == len(model["labels"])
    assert (model["config"]["keep_largest_component"], model["config"]["average_mirrored"]) == (False, False)
    path = sorted((root / server.name / "images").iterdir())[0]
    query = f"{server.address}/infer/student_segmentation?image={path.name.partition('.')[0]}&output=image"
    masks = []
    for options in ({}, {"keep_largest_component": True}, {"average_mirrored": True}):
        (tmp_path / path.name).write_bytes(_post(query, params=json.dumps(options)))
        image = Image.open(tmp_path / path.name) if server.name == "grey" else nib.load(tmp_path / path.name).dataobj
        masks.append(np.asarray(image))
    plain, largest, mirrored = masks
    for index in range(1, len(LABELS)):
        assert ndimage.label(largest == index, np.ones((3,) * plain.ndim))[1] == min((plain == index).sum(), 1)
    assert (largest != plain).any()
    assert (mirrored != plain).any()


def test_train_over_rest(root: Path, server: Server, tmp_path: Path) -> None:
    options = {"max_epochs": 3, "device": "cpu", "val_split": 0.34, "multi_gpu": False}
    before = (server.bundle / "models/model.pt").read_bytes()
    _post(f"{server.address}/train/student_segmentation?run_sync=true", options)
    metadata = json.loads((server.bundle / "configs/metadata.json").read_text())
    print(f"{server.name}: {next(iter(metadata['changelog'].values()))}")
    assert metadata["version"] == "0.1.1"
    assert (server.bundle / "models/former/model_0.1.0.pt").read_bytes() == before
    assert (server.bundle / "models/model.pt").read_bytes() != before
    path = next((root / server.name / "images").iterdir())
    query = f"{server.address}/infer/student_segmentation?image={path.name.partition('.')[0]}&output=image"
    (tmp_path / path.name).write_bytes(_post(query))
    assert (tmp_path / path.name).stat().st_size > 100


@pytest.mark.parametrize("name", ["lite", "colour"])
def test_images_are_scored_by_their_uncertainty(root: Path, label_python: Path, tmp_path: Path, name: str) -> None:
    """Of a network with an argument `dropout`, and of one of MONAI's that is given one."""
    images = [str(path) for path in sorted((root / name / "images").iterdir())]
    command = [str(label_python), str(ROOT / "tests/label/scores.py"), str(root / name / "student_segmentation")]
    done = subprocess.run(
        [*command, *images], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    scores = json.loads(done.stdout.splitlines()[-1])
    assert len(scores) == len(images)
    assert np.isfinite(scores).all()
    print(scores)
