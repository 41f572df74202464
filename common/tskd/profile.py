"""Measure size and speed of networks, side by side."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tskd.errors import TskdError
from tskd.networks.bundle_imports import bundle_imports
from tskd.predict.shipped_bundle import input_shape

STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

_PARTS = re.compile(r"(.*?)(?::(\w+))?(?:@(\d+))?")  # bundle, overlay and size


@torch.inference_mode()
def profile_network(
    network: nn.Module, shape: Sequence[int], device: str | torch.device = "cpu", repeats: int = 20
) -> dict[str, Any]:
    """Measure one forward pass of a batch of one, in float32.

    Args:
        network: network to measure; moved to `device` and set to evaluation mode.
        shape: c x H x W of one image.
        device: where to run.
        repeats: timed forwards, after three that are not.

    Returns:
        `parameters`; `gmac` (10^9 multiply-accumulates of convolutions and matrix products, counted by torch);
        `ms_per_image` (median) and `ms_p95`; `peak_memory_mb`, of the tensors on CUDA, else of the whole process (None
        where that is not told); `device`, `threads` and `shape`.
    """
    device = torch.device(device)
    network = network.to(device).eval()
    x = torch.rand(1, *shape, device=device)
    times = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(repeats + 3):
        begin = time.perf_counter()
        network(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - begin))
    times = sorted(times[3:])
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else _resident("VmHWM")
    # last, as it needs more memory: without fused attention, which counts 0 on a CPU
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(x)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "gmac": counter.get_total_flops() / 2e9,
        "ms_per_image": statistics.median(times),
        "ms_p95": times[max(0, round(0.95 * len(times)) - 1)],
        "peak_memory_mb": memory,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "shape": list(shape),
    }


def profile_bundles(
    names: Sequence[str], settings: Mapping[str, Any], devices: Sequence[str] = ("cpu",), repeats: int = 20
) -> list[dict[str, Any]]:
    """Measure the network of each bundle on each device, each in a new process.

    Args:
        names: a bundle's folder, with `:OVERLAY` for the network of an overlay of its configs and `@SIZE` for an image
            size of its own, such as bundles/student_segmentation:segresnet@128.
        settings: values for keys of inference.json, such as {"num_classes": 5}, for each bundle that has the key; those
            that are None are left out.
        devices: "cpu", "cuda", ...
        repeats: timed forwards.

    Returns:
        For each what `profile_network` does, and `network`, the name. `peak_memory_mb` on a CPU is how far the resident
        memory of the process rose above what it was before the network was built (Linux; None elsewhere).

    Raises:
        TskdError: no such bundle, overlay or device, no image size, or a setting that none of their inference.json has.
    """
    if any(torch.device(device).type == "cuda" for device in devices) and not torch.cuda.is_available():
        raise TskdError(f"device: expected a CUDA device that torch finds, found none for {', '.join(devices)}")
    overrides = {key: value for key, value in settings.items() if value is not None}
    parsers = [_parser(name, {}) for name in names]
    if unknown := [key for key in overrides if not any(key in parser for parser in parsers)]:
        raise TskdError(f"{', '.join(names)}: inference.json has no key {', '.join(unknown)}")
    for name, parser in zip(names, parsers, strict=True):
        if "image_size" not in parser:
            raise TskdError(f"{name}: expected an image size, found no image_size in its inference.json. Add @SIZE")
    profiles, threads = [], torch.get_num_threads()
    # a fork of a process that has only imported is as new, and need not import again
    method = "fork" if os.environ.get("TSKD_WARM") and list(devices) == ["cpu"] else "spawn"
    for name in names:
        for device in devices:
            with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
                profiles.append(pool.submit(_profile_bundle, name, overrides, device, repeats, threads).result())
    return profiles


def profile_table(profiles: Sequence[Mapping[str, Any]]) -> str:
    """Return the profiles as a Markdown table."""
    lines = [
        "| network | image | device | parameters | GMAC | ms (median) | ms (95%) | peak memory |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for profile in profiles:
        memory = "" if profile["peak_memory_mb"] is None else f"{profile['peak_memory_mb']:.0f} MB"
        device = (
            f"{profile['device']}, {profile['threads']} thread{'s' * (profile['threads'] > 1)}"
            if profile["device"] == "cpu"
            else profile["device"]
        )
        lines.append(
            f"| {profile['network']} | {_size(profile['shape'])} | {device} | {profile['parameters'] / 1e6:.2f} M "
            f"| {profile['gmac']:.2f} | {profile['ms_per_image']:.1f} | {profile['ms_p95']:.1f} | {memory} |"
        )
    return "\n".join(lines)


def _size(shape: Sequence[int]) -> str:
    """Return the side of the images that a network takes, or the sides of its patches."""
    return " x ".join(map(str, shape[1:])) if len(shape) > 3 else str(shape[-1])


def _profile_bundle(
    name: str, settings: dict[str, Any], device: str, repeats: int, threads: int
) -> dict[str, Any]:  # in a process of its own
    torch.set_num_threads(threads)
    parser = _parser(name, settings)
    shape = input_shape({**parser.get(), "in_channels": parser.get("in_channels", 1)})
    with bundle_imports(_folder(name)):
        component = _parser(name, settings).get_parsed_content("network_def", instantiate=False)
        locate(component.resolve_module_name())  # imported, not built
    profile_network(nn.Conv2d(1, 1, 3), (1, 8, 8), device, 1)  # what torch sets up for the first forward of a process
    with suppress(OSError):
        PEAK_RESET.write_text("5")  # the peak so far was that of the imports
    before = _resident("VmRSS")
    with bundle_imports(_folder(name)):  # of a network that a shipped bundle carries
        network = parser.get_parsed_content("network_def")
    result = profile_network(network, shape, device, repeats)
    if torch.device(device).type != "cuda" and before is not None:
        result["peak_memory_mb"] -= before
    return {"network": type(network).__name__ if "vfm" not in parser else parser["vfm"], **result}


def _folder(name: str) -> Path:
    return Path(_PARTS.fullmatch(name).group(1))  # type: ignore[union-attr]


def _parser(name: str, settings: Mapping[str, Any]) -> ConfigParser:
    folder, overlay, size = _PARTS.fullmatch(name).groups()  # type: ignore[union-attr]
    files = [Path(folder) / "configs" / f"{part}.json" for part in ("inference", overlay) if part]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise TskdError(f"{name}: expected a bundle's folder or FOLDER:OVERLAY@SIZE, not found: {', '.join(missing)}")
    parser = ConfigParser()
    parser.read_config(files)
    parser.update({key: value for key, value in settings.items() if key in parser})
    parser.update({"image_size": int(size)} if size else {})
    return parser


def _resident(field: str) -> float | None:
    """Return the resident memory of this process now (VmRSS) or at its peak (VmHWM), in MB; None where not told."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return None
