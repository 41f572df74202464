"""What was measured of this machine, kept in the user's cache folder: the fastest ways to train the student."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tskd.cpus import cpus
from tskd.files import write_json
from tskd.networks.weight_store import cache_folder

NAME = "machine.json"
CLEAR = 0.95  # a way is faster if it takes less than this share of another one's time


def processor_name() -> str:
    """Return the model of this machine's processor and the number of cores that may be used, without torch."""
    model = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):  # Linux says more there
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{model}, {cpus()} cores"


class Way(NamedTuple):
    """How a student is trained: precision, images a step, and layout of the activations in memory."""

    amp_dtype: str
    batch_size: int
    memory_format: str

    def __str__(self) -> str:
        """In words."""
        return f"{self.amp_dtype}, batch {self.batch_size}, {self.memory_format}"


class Measured(NamedTuple):
    """Milliseconds an image of each way, on a device, at an image size.

    Attributes:
        device: its kind, "cpu" or "cuda".
        name: of the processor or card, as torch tells it.
        threads: of torch.
        torch: its version.
        student: overlay of the student's bundle.
        image_size: side in pixels.
        milliseconds: an image, of each way.
        processor: of the machine, as `processor_name` says.
    """

    device: str
    name: str
    threads: int
    torch: str
    student: str
    image_size: int
    milliseconds: dict[Way, float]
    processor: str

    @property
    def default(self) -> Way:
        """What the student's train.json says for the device."""
        return Way("bfloat16" if self.device == "cuda" else "float32", 8, "channels_last")

    def share(self, way: Way, of: Way | None = None) -> float:
        """Return the time of a way as a share of another one's, by default of the default's."""
        return self.milliseconds[way] / self.milliseconds[of or self.default]

    def faster(self) -> dict[str, tuple[Any, float]]:
        """Return setting -> value and share of the time, of those that are clearly faster than the default's.

        Layout first, which changes no result, then precision, then batch: each with those before it.
        """
        chosen, result = self.default, {}
        for setting in ("memory_format", "amp_dtype", "batch_size"):
            values = {getattr(way, setting) for way in self.milliseconds}
            ways = [way for value in values if (way := chosen._replace(**{setting: value})) in self.milliseconds]
            best = min(ways, key=self.milliseconds.__getitem__)
            if self.share(best, chosen) < CLEAR:
                result[setting] = (getattr(best, setting), self.share(best, chosen))
                chosen = best
        return result

    def advice(self) -> list[str]:
        """Return `faster` as lines of a study, each with what it changes."""
        changes = {
            "memory_format": "the same but for rounding",
            "amp_dtype": "other numbers: Dice was measured in short trainings only (docs/performance.md)",
            "batch_size": "another training: as many updates see other numbers of images",
        }
        return [
            f"{setting}: {value}  # {share:.2f} of the time an image; {changes[setting]}"
            for setting, (value, share) in self.faster().items()
        ]


def write_measured(measured: Measured) -> Path:
    """Write the file; it names no host, user or folder."""
    file = cache_folder() / NAME
    rows = [{**way._asdict(), "ms_per_image": value} for way, value in measured.milliseconds.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**measured._asdict(), "milliseconds": rows})
    return file


def read_measured() -> Measured | None:
    """Return what was measured; None where nothing was, by another version of torch, or on another processor.

    A home folder may be shared by machines that are not alike.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        content: dict[str, Any] = json.loads((cache_folder() / NAME).read_text(encoding="utf-8"))
        rows = content.pop("milliseconds")
        ways = {Way(row["amp_dtype"], row["batch_size"], row["memory_format"]): row["ms_per_image"] for row in rows}
        measured = Measured(**content, milliseconds=ways)
        current = version("torch")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PackageNotFoundError):
        return None  # a file of another version, or none: it can be measured again
    fits = measured.torch == current and measured.processor == processor_name()
    return measured if fits and measured.default in ways else None
