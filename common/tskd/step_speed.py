"""Measure the fastest precision, batch and layout for the student's training step on this machine."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.machine_file import CLEAR, Measured, Way, processor_name

WAYS = tuple(
    Way(*each) for each in product(("float32", "bfloat16"), (4, 8, 16), ("channels_last", "contiguous_format"))
)
ROUNDS = 3


def measure_speed(
    bundle: Path,
    image_size: int = 128,
    device: str | None = None,
    seconds: float = 2.0,
    student: str = "lite_unet",
    ways: Sequence[Way] = WAYS,
) -> Measured:
    """Time training steps of each way on random images; the ways take turns, and the median of the rounds counts.

    A step is forward, loss, backward and optimizer, as the bundle's configs have them. With one thread of a CPU its
    CPU time counts, which other programs disturb less, else wall time.

    Args:
        bundle: folder of the student's bundle.
        image_size: side in pixels.
        device: "cpu" or "cuda"; None for the card where there is one.
        seconds: for each way, over all rounds; one step a round at least.
        student: overlay that names the network.
        ways: what is compared.

    Raises:
        TskdError: a device that is not there, or no such overlay.
    """
    import torch

    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(kind).type == "cuda" and not torch.cuda.is_available():
        raise TskdError(f"--device: expected one that torch finds, found {kind} and no CUDA device. Give --device cpu")
    cuda = torch.device(kind).type == "cuda"
    clock = time.process_time if not cuda and torch.get_num_threads() == 1 else time.perf_counter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = {way: _step(bundle, way, image_size, kind, student) for way in ways}
        times = _take_turns(steps, seconds, clock)
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return Measured(
        device="cuda" if cuda else "cpu",
        name=torch.cuda.get_device_name(kind) if cuda else str(known.get("cpu_name", "")),
        threads=torch.get_num_threads(),
        torch=version("torch"),
        student=student,
        image_size=image_size,
        milliseconds={way: round(1000 * value / way.batch_size, 3) for way, value in times.items()},
        processor=processor_name(),
    )


def _take_turns(steps: dict[Way, Callable[[], None]], seconds: float, clock: Callable[[], float]) -> dict[Way, float]:
    """Return the seconds a step of each way: the median over the rounds of the mean of a round's steps."""
    for step in steps.values():  # what a library sets up at first is not counted
        step()
    rounds: dict[Way, list[float]] = {way: [] for way in steps}
    for _ in range(ROUNDS):
        for way, step in steps.items():
            begin, count = clock(), 0
            while count == 0 or clock() - begin < seconds / ROUNDS:
                step()
                count += 1
            rounds[way].append((clock() - begin) / count)
    return {way: statistics.median(values) for way, values in rounds.items()}


def _step(bundle: Path, way: Way, image_size: int, device: str, student: str) -> Callable[[], None]:
    """Build the student as its configs have it, and return a function that trains it for a step."""
    import torch
    from monai.bundle import ConfigParser

    files = [bundle / "configs" / f"{name}.json" for name in ("train", student)]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise TskdError(f"expected the student's configuration, not found: {', '.join(missing)}. Pass --bundles")
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.update({"image_size": image_size, "device": device, **way._asdict()})
    parser.update({"encoder_weights": "random"} if "encoder_weights" in parser else {})
    network = parser.get_parsed_content("train#trainer#network").train()
    optimizer, inferer = parser.get_parsed_content("optimizer"), parser.get_parsed_content("train#inferer")
    loss_function = parser.get_parsed_content("train#trainer#loss_function")
    image = torch.rand(way.batch_size, parser["in_channels"], image_size, image_size, device=device)
    shape = (way.batch_size, 1, image_size, image_size)
    label = torch.randint(0, parser["num_classes"], shape, dtype=torch.uint8, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_function(inferer(image, network), label).backward()
        optimizer.step()
        if image.is_cuda:
            torch.cuda.synchronize(image.device)

    return step


def speed_table(measured: Measured) -> str:
    """Return the ways as a table, fastest first, with what to choose and what that changes."""
    default = measured.default
    best = min(measured.milliseconds, key=measured.milliseconds.__getitem__)
    best = best if measured.share(best) < CLEAR else default
    device = f"{measured.name or measured.device}, {measured.threads} thread{'s' * (measured.threads > 1)}"
    rows = [f"A training step of {measured.student} at {measured.image_size} px on {device}, torch {measured.torch}:"]
    rows += ["  precision  batch  layout             ms an image  of the default's time"]
    for way in sorted(measured.milliseconds, key=measured.milliseconds.__getitem__):
        mark = "  default" if way == default else ""
        rows.append(
            f"  {way.amp_dtype:<9}  {way.batch_size:>5}  {way.memory_format:<17}  {measured.milliseconds[way]:>11.2f}"
            f"  {measured.share(way):>21.2f}{mark}"
        )
    if best == default:
        return "\n".join([*rows, f"Fastest: the default ({default}); no other takes less than {CLEAR} of its time."])
    rows.append(f"Fastest: {best}, {measured.share(best):.2f} of the default's time.")
    return "\n".join([*rows, "One setting after the other, in a study below overrides/student:", *measured.advice()])
