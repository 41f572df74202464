"""Look at an installation: versions, devices, compiler, disk, hub; as text to paste into a report. It names no path."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tskd import __version__

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
HUB = "huggingface.co"
_COMPILED = "import torch; f = torch.compile(lambda x: torch.nn.functional.gelu(x) + 1); print(f(torch.ones(8)).sum())"


def check_installation(compile_seconds: float = 120.0, hub_seconds: float = 5.0) -> tuple[str, bool]:
    """Return the check as text, and whether a training can run.

    Args:
        compile_seconds: limit for compiling a function; 0 leaves that out.
        hub_seconds: limit for reaching the hub; 0 leaves that out.
    """
    lines = [f"tskd {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    lines += _packages()
    lines += _devices()
    lines += [*_compile(compile_seconds)] if compile_seconds else []
    lines += [_disk("working folder", Path.cwd()), _disk("temporary folder", Path(os.environ.get("TMPDIR", "/tmp")))]
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield f"ok       {cores} CPU cores"
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    yield f"ok       torch was built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'the CPU'}"
    if not torch.cuda.is_available():
        yield "note     no CUDA device: a training takes many times as long as on one"
    for number in range(torch.cuda.device_count()):
        free, memory = torch.cuda.mem_get_info(number)
        about = f"{torch.cuda.get_device_name(number)}, {memory / 2**30:.0f} GiB of which {free / 2**30:.0f} are free"
        half = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: set --amp_dtype None"
        yield f"ok       {about}, {half}"


def _compile(seconds: float) -> Iterator[str]:
    """Compile a small function in a process of its own, which may hang or take the process down."""
    command = [sys.executable, "-W", "ignore", "-c", _COMPILED]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        good = done.returncode == 0
    except subprocess.TimeoutExpired:
        good, said = False, f"not within {seconds:.0f} s"
    yield "ok       torch.compile" if good else f"note     torch.compile does not work (--compile False): {said[:150]}"


def _disk(what: str, folder: Path) -> str:
    free = shutil.disk_usage(folder).free / 2**30
    return f"{'ok' if free >= DISK else 'note':<9}{free:.0f} GiB free in the {what}"


def _hub(seconds: float) -> str:
    try:
        socket.create_connection((HUB, 443), timeout=seconds).close()
    except OSError:
        return f"note     {HUB} cannot be reached: copy weights by hand (key `weights`)"
    return f"ok       {HUB} can be reached"
