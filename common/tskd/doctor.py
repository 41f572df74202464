"""Measure the peak memory of a training step, and propose settings that fit this machine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tskd.errors import TskdError, plain_errors
from tskd.options import refuse_unknown
from tskd.workflow import warm

GIB = 2**30
MARGIN = 0.9  # of the limit: the rest is for the images in memory and fragmentation


class Step(NamedTuple):
    """One training step and validation as measured; `peak` is None where the memory did not suffice."""

    batch_size: int
    checkpointing: bool
    peak: int | None
    seconds: float | None


class Fit(NamedTuple):
    """What a stage's measurement says: a table with the proposal, and the whole training's seconds, None: no fit."""

    text: str
    name: str
    seconds: float | None


def every_stage(
    bundles: Mapping[str, Path], settings: Mapping[str, Any], memory_limit: float | None = None
) -> Iterator[tuple[str, bool]]:
    """Measure the stages one after the other, and say last how long each one's training takes here.

    Args:
        bundles: stage -> its bundle's folder.
        settings: keys of train.json to override, each in the stages that have it.
        memory_limit: GiB to stay below; None for what the machine has.

    Yields:
        A text, and whether the stage fits; for the last text, whether all do.

    Raises:
        TskdError: a key that no stage has, or what `doctor` raises.
    """
    where = {key: _stages_with(key, bundles) for key in settings}
    if unknown := [key for key, stages in where.items() if not stages]:
        raise TskdError(f"{', '.join(unknown)}: no stage's train.json has such a key. `--stage NAME` names close ones")
    fits = {}
    for stage, bundle in bundles.items():
        chosen = {key: value for key, value in settings.items() if stage in where[key]}
        fits[stage] = doctor(bundle, chosen, memory_limit)
        yield f"{stage}: {fits[stage].text}\n", fits[stage].seconds is not None
    rows = [f"  {stage:<10}{_finish(fit.seconds):<16}{fit.name}" for stage, fit in fits.items()]
    times = [fit.seconds for fit in fits.values()]
    known = [seconds for seconds in times if seconds is not None]
    rows.append(f"  {'together':<10}{_finish(sum(known))}" + " without what does not fit" * (len(known) < len(times)))
    yield (
        "\n".join(["Time to finish here, each with its train.json's steps and the settings above:", *rows]),
        (len(known) == len(times)),
    )


def _stages_with(key: str, bundles: Mapping[str, Path]) -> list[str]:
    """Return the stages whose train.json has a key in full; where none has, those with its first part."""
    depths: dict[str, int] = {}
    for stage, bundle in bundles.items():
        file, depths[stage] = bundle / "configs" / "train.json", 0
        config: Any = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for part in key.split("#"):
            if not isinstance(config, dict) or part not in config:
                break
            config, depths[stage] = config[part], depths[stage] + 1
    full = [stage for stage, depth in depths.items() if depth == len(key.split("#"))]
    return full or [stage for stage, depth in depths.items() if depth]


def _finish(seconds: float | None) -> str:
    return "does not fit" if seconds is None else _duration(seconds)


def doctor(bundle: Path, settings: Mapping[str, Any], memory_limit: float | None = None) -> Fit:
    """Measure training steps of a bundle's train.json and propose what fits.

    Each step runs in a process of its own (a fork of one that has imported MONAI), with random weights and images. On a
    CPU its peak is all memory of the process but shared library files, on CUDA what torch has allocated.

    Args:
        bundle: folder of a bundle with a train.json: the teacher, the student or the diffusion model.
        settings: keys of train.json to override, such as vfm, image_size, batch_size and device.
        memory_limit: GiB to stay below; None for what the machine has.

    Returns:
        A table with the proposal, the network's name, and how long the training takes.

    Raises:
        TskdError: for a wrong setting, or when a step fails for another reason than memory.
    """
    config = str(bundle / "configs" / "train.json")
    if not Path(config).is_file():
        raise TskdError(
            f"{config}: expected the bundle's configuration, found none. Pass --bundles, the bundles' folder"
        )
    facts = _machine_and_settings(_parser(config, settings))
    limit = round(memory_limit * GIB) if memory_limit is not None else facts["memory"]

    ways = (False, True) if facts["checkpointing"] else (False,)
    with TemporaryDirectory() as name:
        folder = Path(name)
        with warm.server(folder, folder / "server.log") as environment:

            def measure(batch_size: int, checkpointing: bool) -> Step:
                chosen = {**settings, "batch_size": batch_size}
                if facts["checkpointing"]:
                    chosen["gradient_checkpointing"] = checkpointing
                return Step(batch_size, checkpointing, **_run_step_in_subprocess(config, chosen, folder, environment))

            steps, chosen = search(measure, facts["batch_size"], round(MARGIN * limit), ways)
    title = (
        f"{facts['name']}, {facts['image_size']} px, on {facts['device']}; limit {limit / GIB:.2f} GiB, of which "
        f"{MARGIN:.0%} may be used"
    )
    text = "\n".join([title, _table(steps, facts["batch_size"], MARGIN * limit), _proposal(chosen, facts)])
    return Fit(text, facts["name"], _whole_training(chosen, facts) if chosen else None)


def search(
    measure: Callable[[int, bool], Step], batch_size: int, limit: int, ways: Sequence[bool] = (False, True)
) -> tuple[list[Step], Step | None]:
    """Find the largest divisor of `batch_size` whose step stays within `limit` bytes; checkpointing only if needed.

    Begins with one image and stops where the next batch would not fit, as far as the last two tell.

    Args:
        measure: (batch size, gradient checkpointing) -> the measured step.
        batch_size: images an update of the weights is to see.
        limit: bytes.
        ways: without and with gradient checkpointing, in the order in which they are tried.

    Returns:
        All steps that were measured, and the one to choose, or None.
    """
    steps: list[Step] = []
    for checkpointing in ways:
        fitting: list[Step] = []
        for size in (n for n in range(1, batch_size + 1) if batch_size % n == 0):
            if len(fitting) > 1 and _extrapolate_peak(fitting[-2], fitting[-1], size) > limit:
                break
            steps.append(measure(size, checkpointing))
            peak = steps[-1].peak
            if peak is None or peak > limit:
                break
            fitting.append(steps[-1])
        if fitting:
            return steps, fitting[-1]
    return steps, None


def _extrapolate_peak(first: Step, second: Step, batch_size: int) -> float:
    assert first.peak is not None
    assert second.peak is not None
    slope = (second.peak - first.peak) / (second.batch_size - first.batch_size)
    return second.peak + slope * (batch_size - second.batch_size)


def _table(steps: list[Step], batch_size: int, limit: float) -> str:
    rows = ["  batch_size  accumulation_steps  gradient_checkpointing  peak GiB  seconds a step  fits"]
    for step in steps:
        peak = "too much" if step.peak is None else f"{step.peak / GIB:.2f}"
        seconds = "" if step.seconds is None else f"{step.seconds:.2f}"
        fits = "yes" if step.peak is not None and step.peak <= limit else "no"
        rows.append(
            f"  {step.batch_size:>10}  {batch_size // step.batch_size:>18}  {step.checkpointing!s:>22}  {peak:>8}  "
            f"{seconds:>14}  {fits}"
        )
    return "\n".join(rows)


def _proposal(step: Step | None, facts: Mapping[str, Any]) -> str:
    if step is None:
        return (
            "Nothing fits. Choose a smaller image_size, a smaller network (of a teacher: vfm mobile_sam, or "
            "--set fine_tuning#blocks=2), or train on a machine with more memory."
        )
    parts = facts["batch_size"] // step.batch_size
    proposal = f"Proposed: --batch_size {step.batch_size} --accumulation_steps {parts}"
    if facts["checkpointing"]:
        proposal += f" --gradient_checkpointing {step.checkpointing}"
    updates, batch = facts["max_epochs"] * facts["iterations_per_epoch"], facts["batch_size"]
    time_left = _duration(_whole_training(step, facts))
    whole = f"\nThe whole training, {updates:,} updates of {batch} images: {time_left} here, and validation"
    if parts == 1:
        return proposal + whole
    keys = " ".join(f"--{key} {parts * facts[key]}" for key in ("iterations_per_epoch", "warmup_steps"))
    note = f"(an iteration is one batch of {step.batch_size}: {parts} of them make an update)"
    return f"{proposal} {keys}\n{note}{whole}"


def _whole_training(step: Step, facts: Mapping[str, Any]) -> float:
    """Return the seconds of all updates, each of as many steps as its images need."""
    steps = facts["batch_size"] // step.batch_size
    return facts["max_epochs"] * facts["iterations_per_epoch"] * steps * (step.seconds or 0.0)


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"about {max(round(seconds / 60), 1)} min"
    return f"about {seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"about {seconds / 86400:.1f} days"


def _run_step_in_subprocess(
    config: str, settings: Mapping[str, Any], folder: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Run `_measure_step` in a process of its own, which writes what it prints into `folder`."""
    output, errors = folder / "output.txt", folder / "errors.txt"
    variables = {**os.environ, "PYTHONWARNINGS": "ignore", **environment}
    with output.open("w") as printed, errors.open("w") as said:
        process = warm.start(["tskd.doctor", config, json.dumps(settings)], printed, variables, said)
    status = process.wait()
    if status == 0:
        return json.loads(output.read_text().splitlines()[-1])
    message = (errors.read_text().strip().splitlines() or ["no message"])[-1]
    killed = status in (-9, 137)  # by the system; torch says it in words
    if killed or "memory" in message.lower() or "ALLOC_FAILED" in message:
        return {"peak": None, "seconds": None}
    raise TskdError(f"the measured step failed: {message.removeprefix('error: ')}")


def _parser(config: str, settings: Mapping[str, Any]) -> Any:
    """Parse train.json with the settings, and random weights in place of the foundation model's."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(config)
    refuse_unknown(settings, parser.get(), config)
    parser.update({**settings, **({"pretrained": "@network_def"} if "pretrained" in parser else {})})
    return parser


def _machine_and_settings(parser: Any) -> dict[str, Any]:
    """Return what is measured, where, and how much memory there is."""
    import torch

    device = torch.device(parser.get_parsed_content("device"))
    cuda = device.type == "cuda"
    return {
        "name": _network_name(parser),
        "checkpointing": "gradient_checkpointing" in parser,
        "max_epochs": parser["max_epochs"],
        "image_size": parser["image_size"],
        "batch_size": parser["batch_size"],
        "iterations_per_epoch": parser["iterations_per_epoch"],
        "warmup_steps": parser["warmup_steps"],
        "device": torch.cuda.get_device_name(device) if cuda else "the CPU",
        "memory": torch.cuda.mem_get_info(device)[0] if cuda else _available_memory(),
    }


def _network_name(parser: Any) -> str:
    if "vfm" in parser:
        return f"{parser['vfm']}, fine-tuning {parser['fine_tuning#mode']}"
    if "scheduler" in parser:
        return "diffusion model"
    return f"student {str(parser['network_def#_target_']).rsplit('.', 1)[-1]}"


def _measure_step(parser: Any) -> dict[str, Any]:
    """Measure a training step's seconds, and the peak memory in bytes of that and of a validation of as many images."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True  # as train.json has it
    device = torch.device(parser.get_parsed_content("device"))
    size, batch_size = parser["image_size"], parser["batch_size"]
    network = parser.get_parsed_content("train#trainer#network").train()
    optimizer, inferer = parser.get_parsed_content("optimizer"), parser.get_parsed_content("train#inferer")
    loss_function = parser.get_parsed_content("train#trainer#loss_function")
    average = parser.get_parsed_content("ema") if "ema" in parser else None  # unused, but there in a training
    channels = parser.get("in_channels", 1)
    image = torch.rand(batch_size, channels, size, size, device=device)
    times = torch.zeros(batch_size, dtype=torch.long, device=device)
    diffusion = "scheduler" in parser  # it predicts the noise of an image at a time
    classes = 2 if diffusion else parser["num_classes"]
    label = torch.randint(0, classes, (batch_size, 1, size, size), dtype=torch.uint8, device=device)

    def loss() -> torch.Tensor:
        if diffusion:
            return (_sample(network(image, timesteps=times)) - image).square().mean()
        return loss_function(inferer(image, network), label)

    for _ in range(2):  # the optimizer's state is there from the second step on
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begin
    with torch.no_grad():
        trained = parser.get_parsed_content("network").eval()
        trained(image, timesteps=times) if diffusion else trained(image)
    del average
    return {
        "peak": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak_memory(),
        "seconds": seconds,
    }


def _sample(result: Any) -> Any:
    """Return the tensor of what a diffusion network returns."""
    return getattr(result, "sample", result[0] if isinstance(result, tuple) else result)


def _peak_memory() -> int:
    """Return the largest resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage: its maximum counts the parent process as well, from before the start
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _available_memory() -> int:
    """Return the memory in bytes that new processes can have."""
    information = Path("/proc/meminfo")
    if information.is_file():
        available = 1024 * int(information.read_text().split("MemAvailable:")[1].split()[0])
        return min([available, *group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def group_limits(membership: Path, root: Path) -> list[int]:
    """Return the memory limits in bytes of this process's control group and all above it (container, batch system).

    Args:
        membership: file of lines `hierarchy:controllers:/path`, /proc/self/cgroup.
        root: where the groups are mounted, versions 1 and 2.
    """
    limits = []
    for line in membership.read_text().splitlines() if membership.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        group_dir = top / path.strip("/")
        for group in (group_dir, *(parent for parent in group_dir.parents if parent.is_relative_to(top))):
            text = (group / name).read_text().strip() if (group / name).is_file() else ""
            limits += [int(text)] if text.isdigit() else []
    return limits


if __name__ == "__main__":
    plain_errors()
    print(json.dumps(_measure_step(_parser(sys.argv[1], json.loads(sys.argv[2])))))
