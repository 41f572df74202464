"""Folders for MONAI Deploy, MONAI Label and the Hugging Face hub: what they hold, and what the hub shows."""

import base64
import json
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nibabel import affines, eulerangles

from tests.bundles.standalone import IMAGE_SIZE, LABELS, ship, student
from tskd.cli import main
from tskd.data import virtual_patient
from tskd.data.phantom.dicom_writer import write_series
from tskd.errors import TskdError
from tskd.export.deploy_folder import write_deploy
from tskd.export.shared_folders import LABEL_PACKAGES, write_huggingface
from tskd.predict.organ_codes import code_of
from tskd.predict.predict_files import predict
from tskd.predict.shipped_bundle import read_bundle

pytestmark = pytest.mark.bundle
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship(tmp_path_factory.mktemp("shipped"), "nii.gz", name="toy")


def test_the_deploy_application_has_the_codes_of_its_structures_in_order(bundle: Path, tmp_path: Path) -> None:
    assert main(["export", str(bundle), "--to", "deploy", "--output", str(tmp_path / "app")]) == 0
    app = tmp_path / "app"
    assert {path.name for path in app.iterdir()} == {
        "LICENSE", "README.md", "app.py", "app.yaml", "codes.json", "docs", "model", "requirements.txt", "rules.json",
    }  # fmt: skip
    codes = json.loads((app / "codes.json").read_text())
    assert [structure["name"] for structure in codes["structures"]] == list(LABELS.values())[1:]
    assert codes["structures"][0] == {
        "name": "liver",
        "category": list(code_of("liver")[0]),
        "type": ["10200004", "SCT", "Liver"],
    }
    assert yaml.safe_load((app / "app.yaml").read_text().split("---")[1])["resources"]["gpu"] == 0
    assert json.loads((app / "rules.json").read_text())["selections"][0]["conditions"] == {
        "ImageType": ["!LOCALIZER"],
        "Modality": "(?i)^MR$",
    }
    assert "monai-deploy-app-sdk==4.0.0" in (app / "requirements.txt").read_text()
    x = torch.rand(3, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(app / "model/model.ts")(x), student()(x), atol=1e-5, rtol=0)
    assert "import tskd" not in (app / "app.py").read_text()
    assert "In this application only `model/model.ts`" in (app / "docs/README.md").read_text()
    with pytest.raises(TskdError, match="new or empty folder"):
        write_deploy(read_bundle(bundle), app)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """An oblique DICOM series whose files are not in the order of its slices."""
    image, _, affine = virtual_patient(seed=5, number=0, image_size=52, num_slices=5)
    tilted = affines.from_matvec(eulerangles.euler2mat(z=0.1, y=0.05, x=-0.08), [3.0, -8.0, 11.0]) @ affine
    write_series(tmp_path / "series", image[4:50, 6:46].copy(), tilted, "P1", "one", file_order=[3, 0, 4, 1, 2])
    return tmp_path / "series"


def test_the_deploy_application_gives_the_masks_of_predict(bundle: Path, series: Path, tmp_path: Path) -> None:
    python = os.environ.get("TSKD_DEPLOY_PYTHON")
    if not python:
        pytest.skip("needs MONAI Deploy: TSKD_DEPLOY_PYTHON is not set; docs/how-to/deploy.md installs it")
    write_deploy(read_bundle(bundle), tmp_path / "app")
    command = [python, str(tmp_path / "app/app.py"), "--input", str(series), "--output", str(tmp_path / "seg")]
    done = subprocess.run(
        [*command, "--model", str(tmp_path / "app/model/model.ts")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert predict(bundle, [series], tmp_path / "ours", mask_format="dicom-seg") == 0
    (theirs,), (ours,) = list((tmp_path / "seg").glob("*.dcm")), list((tmp_path / "ours").glob("*.dcm"))
    one, two = _segments(theirs), _segments(ours)
    assert one.any()
    np.testing.assert_array_equal(one, two)


def _segments(path: Path) -> np.ndarray:
    """A SEG on the grid of its source images: [slices, rows, columns, segments], slices in order of SOPInstanceUID."""
    import highdicom

    seg = highdicom.seg.segread(path)
    sources = sorted(uid for _, _, uid in seg.get_source_image_uids())
    return np.asarray(seg.get_pixels_by_source_instance(sources, assert_missing_frames_are_empty=True))


def test_a_bundle_of_pictures_is_no_deploy_application(tmp_path: Path) -> None:
    pictures = read_bundle(ship(tmp_path, "png", 3))
    with pytest.raises(TskdError, match="found one of 2-D images"):
        write_deploy(pictures, tmp_path / "app")


def test_the_label_folder_has_the_model_where_the_app_looks(bundle: Path, tmp_path: Path) -> None:
    assert main(["export", str(bundle), "--to", "label", "--output", str(tmp_path / "label")]) == 0
    folder = tmp_path / "label"
    model = folder / "model/student_segmentation"
    here, there = (
        {path.relative_to(root) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for root in (bundle, model)
    )
    assert here == there  # files in other formats, too, which the README names
    assert (folder / "requirements.txt").read_text().split() == list(LABEL_PACKAGES)
    line = next(
        line for line in (ROOT / "docs/how-to/monai_label.md").read_text().splitlines() if "pip install" in line
    )
    assert tuple(shlex.split(line.partition("pip install ")[2])) == LABEL_PACKAGES  # `make label-as-written` tries it
    stand_in = tmp_path / "bin/monailabel"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\n[ "$1" != apps ] || mkdir -p "$6/monaibundle"\n')
    stand_in.chmod(0o755)
    calls = tmp_path / "calls"
    environment = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "CALLS": str(calls)}
    for _ in range(2):  # the second start keeps what was trained
        subprocess.run(["sh", str(folder / "start.sh"), "studies", "8123"], env=environment, check=True)
    assert (folder / "app/monaibundle/model/student_segmentation/configs/inference.json").is_file()
    said = calls.read_text().splitlines()
    assert [line.split()[0] for line in said] == ["apps", "start_server", "start_server"]
    assert "--conf models student_segmentation" in said[1]
    assert "--port 8123" in said[1]


class Hub(BaseHTTPRequestHandler):
    """Stand-in of the Hugging Face hub's API: takes a repository, a commit and a tag."""

    requests: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append((self.path, body))
        answer: dict[str, Any] = {"url": f"{self.server.url}/me/toy"}  # type: ignore[attr-defined]
        if "/preupload/" in self.path:
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            answer = {"files": [{**file, "shouldIgnore": False} for file in files]}
        elif "/commit/" in self.path:
            answer = {"commitUrl": f"{self.server.url}/me/toy/commit/1", "commitOid": "1", "success": True}  # type: ignore[attr-defined]
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    Hub.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)  # type: ignore[attr-defined]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield Hub
    server.shutdown()
    server.server_close()


def _pushed(hub: type[Hub], folder: Path) -> dict[str, bytes]:
    """Files of the commit that MONAI's own command makes of a folder."""
    from monai.bundle.scripts import push_to_hf_hub

    push_to_hf_hub("me/toy", folder.name, str(folder.parent), token="hf_none", version="0.1.0")
    (body,) = [body for path, body in hub.requests if "/commit/" in path]
    lines = [json.loads(line) for line in body.splitlines()]
    assert any(path.endswith("/tag/main") and json.loads(body)["tag"] == "0.1.0" for path, body in hub.requests)
    return {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
    }


def test_the_hub_gets_our_model_card_with_the_licence_of_the_data(
    tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = ship(tmp_path, "nii.gz", provenance={"licence": "CC BY-NC-SA 4.0", "source": "CHAOS"})
    folder = write_huggingface(read_bundle(bundle), tmp_path / "hub_segmentation")
    files = _pushed(hub, folder)
    card = files["README.md"].decode()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "cc-by-nc-sa-4.0"
    assert head["library_name"] == "monai"
    assert card.count("\n---\n") == 1
    assert "docs/README.md" not in files
    for link in ("docs/data_license.txt", "configs/metadata.json"):
        assert f"]({link})" in card
        assert link in files
    network = torch.load(folder / "models/model.pt", weights_only=True)
    (tmp_path / "got.pt").write_bytes(files["models/model.pt"])
    assert torch.load(tmp_path / "got.pt", weights_only=True).keys() == network.keys()
    shutil.rmtree(folder)
