"""Processes that are forked from one that has imported MONAI, instead of each importing it for 6 CPU-seconds.

The standard library's fork server is started with the first one. A child has its own arguments, environment, working
directory and output, as one of `python -m MODULE` has.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PRELOAD = [
    "monai.bundle", "mlflow", "torch.utils.tensorboard", "diffusers", "pytest", "tskd.data", "tskd.distillation",
    "tskd.evaluation", "tskd.handlers", "tskd.losses", "tskd.networks", "tskd.inferers", "tskd.schedules",
]  # fmt: skip
TIMEOUT = 300.0  # seconds

_context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    _context.set_forkserver_preload(PRELOAD)


def run_module(
    arguments: Sequence[str], cwd: Path | None = None, env: Mapping[str, str | None] | None = None, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with `arguments`, as `processes` ranks of one group as torchrun starts them if more than one.

    Args:
        arguments: module and its arguments.
        cwd: working directory.
        env: variables beside those of this process; None takes one away.
        processes: number of ranks, which find each other as `init_process_group` does.

    Returns:
        The worst exit status and the output of all.
    """
    return run(_module, list(arguments), cwd=cwd, env=env, processes=processes)


def run(
    target: Callable[..., None],
    *arguments: Any,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    processes: int = 1,
) -> subprocess.CompletedProcess[str]:
    """Call `target(*arguments)` in new processes; the rest is as for `run_module`."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    variables = {key: value for key, value in given.items() if value is not None}
    ranks = [variables] if processes == 1 else [variables | rank for rank in _ranks(processes)]
    with TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(number) for number in range(processes)]
        children = [
            _context.Process(target=_child, args=(target, arguments, str(output), str(cwd or Path.cwd()), rank))
            for output, rank in zip(outputs, ranks, strict=True)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(TIMEOUT)
            if child.exitcode is None:
                child.kill()
                child.join()
        texts = [["".join(path.with_suffix(end).read_text() for path in outputs)] for end in (".out", ".err")]
    status = max((child.exitcode or 0 for child in children), key=abs)
    return subprocess.CompletedProcess(list(map(str, arguments)), status, texts[0][0], texts[1][0])


def cpu_seconds() -> float:
    """CPU seconds of the fork server and the children that it has seen end (Linux)."""
    server = sys.modules.get("multiprocessing.forkserver")
    pid = server._forkserver._forkserver_pid if server else None
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _ranks(processes: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _child(
    target: Callable[..., None], arguments: tuple[Any, ...], output: str, cwd: str, variables: dict[str, str]
) -> None:
    for stream, end in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(output + end, os.O_CREAT | os.O_WRONLY), stream)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    sys.modules["torch"].set_num_threads(1)
    status = 1
    try:
        target(*arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc() if sys.excepthook is sys.__excepthook__ else sys.excepthook(*sys.exc_info())
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without the second in which Python clears away thousands of modules


def _module(arguments: list[str]) -> None:
    sys.argv = arguments
    sys.path[0] = os.getcwd()
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
