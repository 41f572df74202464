"""Fill the disk under each training and each generator: it ends in a line of ours, and goes on once there is space.

    python -m tests.faults.disk

The disk is a small tmpfs, which needs the right to mount one. It is made as large as a share of what the uninterrupted
run has written; then it grows, and the run is started again. What it has written must be that of the uninterrupted run.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.kill import child, compare, log, make_whole, refuse_torn
from tests.faults.stages import STAGES, cohort

SHARES = (0.02, 0.35, 0.7, 0.97)
SAID = ("no space left", "cannot write")


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A tmpfs of so many bytes at `place`.

    Raises:
        PermissionError: this process may not mount one.
    """
    place.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise PermissionError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(name: str, folder: Path, data: Path, shares: Sequence[float]) -> str:
    """Run a stage on disks of these shares of what it needs; what happened, in a sentence.

    Raises:
        AssertionError: an error without a line of ours, a torn file, a restart that fails or gives something else.
    """
    whole = make_whole(name, data)
    size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    full = 0
    for share in shares:
        place = folder / f"{name}{share}"
        with small_disk(place, int(size * share)):
            run = place / "run"
            status = child(STAGES[name], run, data, None, place.with_suffix(".log"))
            text = log(place)
            full += status != 0
            assert status == 0 or (status == 1 and named(text)), text
            if run.is_dir():
                refuse_torn(run)
            subprocess.run(["mount", "-o", f"remount,size={8 * size}", str(place)], check=True)
            assert child(STAGES[name], run, data, None, place.with_suffix(".log")) == 0, log(place)
            compare(whole, run)
    return f"{full} of {len(shares)} disks were full; the same once there was space"


def named(text: str) -> bool:
    """Whether the end of a run was told in a line, and not by a traceback."""
    last = text.strip().rpartition("\n")[2]
    return last.startswith("error: ") and any(words in last for words in SAID) and "Traceback" not in text


def main() -> None:
    """Print a line a stage."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--stages", default=",".join(STAGES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        cohort(data)
        for name in options.stages.split(","):
            print(f"{name}: {fill(name, Path(folder), data, SHARES)}", flush=True)


if __name__ == "__main__":
    main()
