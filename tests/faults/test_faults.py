"""A tenth of what `make test-faults` does."""

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.fuzz import fuzz

ROOT = Path(__file__).resolve().parents[2]


def test_ten_kills_of_a_training() -> None:
    """In a process of its own, whose forks have one thread."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.kill", "--kills", "10", "--stages", "student"]
    paths = os.pathsep.join([str(ROOT / "common"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "student: 10 kills" in done.stdout


def test_mutated_inputs_end_in_a_line_of_ours(tmp_path: Path) -> None:
    assert not fuzz(tmp_path, 150, seed=0)
