"""The CPU cores of this process."""

from __future__ import annotations

import os


def cpus() -> int:
    """Return the CPU cores that this process may use, at least 1.

    They are fewer than the machine's under `taskset`, in a job of a cluster and in a container that was given some of
    them. A limit of CPU time (`docker run --cpus`) is none of cores and does not count. macOS and Windows say only how
    many the machine has.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def openmp_threads() -> int | None:
    """Return the threads that `OMP_NUM_THREADS` allows, None where it says nothing.

    OpenMP takes a list, too, a number for each level of nested parallel regions: the first counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None
