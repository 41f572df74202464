"""The number of CPU cores is that of this process, not of the machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tskd import cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes to cores")
def test_a_process_that_is_bound_to_one_core_sees_one():
    core = min(os.sched_getaffinity(0))
    script = f"import os; os.sched_setaffinity(0, {{{core}}}); from tskd import cpus; print(cpus.cpus())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
    assert cpus.cpus() == len(os.sched_getaffinity(0))


def test_where_cores_cannot_be_bound_all_of_the_machine_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cpus.cpus() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.cpus() == 1


def test_no_other_module_counts_cores():
    root = Path(cpus.__file__).parents[2]
    files = [*root.glob("common/tskd/**/*.py"), *root.glob("benchmarks/**/*.py")]
    counting = [file for file in files if re.search("cpu_count|sched_getaffinity", file.read_text(encoding="utf-8"))]
    assert counting == [Path(cpus.__file__)]


@pytest.mark.parametrize(
    ("text", "threads"), [("3", 3), ("4,2", 4), (" 4 , 2", 4), ("", None), (None, None), ("0", None), ("all", None)]
)
def test_the_first_number_of_openmp_counts(text, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if text is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert cpus.openmp_threads() == threads
