"""Look at an installation: versions, devices, compiler, disk, hub; as text to paste into a report.

It names no path, no user and no host.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tskd import __version__
from tskd.cpus import cpus
from tskd.networks.weight_store import cache_folder

NEEDED = {  # distribution -> what does not work without it
    "torch": "training", "monai": "training", "pytorch-ignite": "training", "peft": "teachers",
    "transformers": "teachers", "diffusers": "synthetic images", "safetensors": "weights", "numpy": "everything",
    "nibabel": "NIfTI", "pydicom": "DICOM", "pyjpegls": "JPEG-LS in DICOM", "pillow": "pictures",
    "snakemake": "tskd train", "onnxruntime": "tskd export and predict by ONNX", "highdicom": "DICOM SEG",
}  # fmt: skip
UNWANTED = {
    "torchvision": "transformers loads it, and one that does not fit torch breaks the import",
    "timm": "not used",
}
DISK = 20.0  # GiB that a study with synthetic images may take
HUB = "https://huggingface.co"
_COMPILED = "import torch; f = torch.compile(lambda x: torch.nn.functional.gelu(x) + 1); print(f(torch.ones(8)).sum())"


def check_installation(compile_seconds: float = 120.0, hub_seconds: float = 5.0) -> tuple[str, bool]:
    """Return the check as text, and whether a training can run.

    Args:
        compile_seconds: limit for compiling a function; 0 leaves that out.
        hub_seconds: limit for reaching the hub; 0 leaves that out.
    """
    system = f"{platform.system()} {platform.machine()}"  # not platform.platform(): a kernel may be named after a site
    lines = [f"tskd {__version__}, Python {platform.python_version()}, {system}"]
    lines += _packages()
    lines += _devices()
    lines += [*_compile(compile_seconds)] if compile_seconds else []
    folders = {"working": Path.cwd(), "temporary": Path(tempfile.gettempdir()), "weights' cache": cache_folder()}
    lines += [_disk(f"{name} folder", folder) for name, folder in folders.items()]
    lines += [_hub(hub_seconds)] if hub_seconds else []
    sound = not any(line.startswith("missing") and line.endswith("(training)") for line in lines)
    return "\n".join(lines), sound


def _packages() -> Iterator[str]:
    for name, use in NEEDED.items():
        try:
            yield f"ok       {name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"missing  {name} ({use})"
    for name, why in UNWANTED.items():
        try:
            yield f"note     {name} {metadata.version(name)} is installed: {why}"
        except metadata.PackageNotFoundError:
            continue


def _devices() -> Iterator[str]:
    cores = cpus()
    if importlib.util.find_spec("torch") is None:
        yield f"ok       {cores} CPU cores"
        return
    import torch

    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.13
    kind = f", {known['cpu_name']}" if known.get("cpu_name") else ""
    yield f"ok       {cores} CPU cores{kind}, threads: {torch.get_num_threads()}"
    if known:
        half = [
            name for key, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512"), ("bf16", "ARM")) if known.get(key)
        ]
        yield f"ok       bfloat16 on the CPU: {f'in hardware ({half[0]})' if half else 'emulated, slower than float32'}"
    yield f"ok       torch was built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'the CPU'}"
    if not torch.cuda.is_available():
        yield "note     no CUDA device: a training takes many times as long as on one"
    for number in range(torch.cuda.device_count()):
        free, memory = torch.cuda.mem_get_info(number)
        about = f"{torch.cuda.get_device_name(number)}, {memory / 2**30:.0f} GiB of which {free / 2**30:.0f} are free"
        half_gpu = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: set --amp_dtype None"
        try:  # a card that torch has no kernels for is there and cannot compute
            computed = float(torch.ones(4, device=f"cuda:{number}").sum()) == 4
            yield f"{'ok' if computed else 'missing':<9}{about}, {half_gpu}" + " (training)" * (not computed)
        except RuntimeError as error:
            yield f"missing  {about}: {without_names(str(error).splitlines()[0])} (training)"


def _compile(seconds: float) -> Iterator[str]:
    """Compile a small function in a process of its own, which may hang or take the process down."""
    command = [sys.executable, "-W", "ignore", "-c", _COMPILED]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        good = done.returncode == 0
    except subprocess.TimeoutExpired:
        good, said = False, f"not within {seconds:.0f} s"
    if good:
        yield "ok       torch.compile"
    else:
        yield f"note     torch.compile does not work (--compile False): {without_names(said)[:150]}"


def without_names(text: str) -> str:
    """Return a text without folders, of a path only its last part: a path may name a user, a host or a site."""
    return re.sub(r"(?:[A-Za-z]:)?(?:[\\/][^\s'\":;,\\/]+)+[\\/]([^\s'\":;,\\/]+)", r"\1", text)


def _disk(what: str, folder: Path) -> str:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    return f"{'ok' if free >= DISK else 'note':<9}{free:.0f} GiB free in the {what}"


def _hub(seconds: float) -> str:
    """Ask the hub, or what HF_ENDPOINT names in its place, as its library does: through a proxy where one is set."""
    name = "the mirror in HF_ENDPOINT" if os.environ.get("HF_ENDPOINT") else "huggingface.co"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "note     HF_HUB_OFFLINE is set: only weights that are in the cache are used"
    try:
        urlopen(Request(os.environ.get("HF_ENDPOINT") or HUB, method="HEAD"), timeout=seconds).close()
    except HTTPError:
        return f"ok       {name} can be reached"
    except (OSError, ValueError):
        return f"note     {name} cannot be reached: copy weights by hand (key `weights`)"
    return f"ok       {name} can be reached"
