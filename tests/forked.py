"""Processes that are forked from one that has imported MONAI, instead of each importing it for 8 CPU-seconds.

That one is itself a fork of pytest's process, made before the first test, which has imported what the tests need. A
child has its own arguments, environment, working directory and output, as one of `python -m MODULE` has. Without a fork
(Windows, macOS) processes are started in the ordinary way.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from tskd.workflow import warm

TESTS = Path(__file__).resolve().parent
MODULES = (
    *warm.MODULES,
    "diffusers",
    "mlflow",
    "torch.utils.tensorboard",
    "snakemake.cli",
    "tskd.workflow.study_checks",
)
TIMEOUT = 1200  # seconds of one process


class Server:
    """The process that is forked from; `address` is None where there is no fork."""

    address: str | None = None
    pid = 0


def start(folder: Path) -> None:
    """Make the server; it ends with this process.

    Args:
        folder: for its socket and its log; a short path, as the system allows about 100 characters.
    """
    if sys.platform != "linux":
        return
    listener, (parent, ours) = warm.listen(str(folder / "fork")), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    Server.pid = os.fork()
    if Server.pid == 0:
        os.close(ours)
        _serve(listener, parent, folder / "fork.log")
    os.close(parent)
    listener.close()
    Server.address = str(folder / "fork")


def environment() -> dict[str, str]:
    """Variables with which `tskd.workflow.warm` and `commands` start processes here."""
    return {warm.VARIABLE: Server.address} if Server.address else {}


def commands(folder: Path) -> dict[str, str]:
    """Variables with which a shell's `python -m` and `tskd` are forked; the two are put into `folder`."""
    begin = f"#!{sys.executable} -IS\nimport os, runpy, sys\nstart = runpy.run_path({warm.__file__!r})['start']\n"
    for name, arguments in (("python", "sys.argv[2:]"), ("tskd", "['tskd.cli', *sys.argv[1:]]")):
        program = folder / name
        program.write_text(f"{begin}sys.exit(start({arguments}, None, os.environ).wait())\n")
        program.chmod(0o755)
    return {
        **environment(),
        "PATH": f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


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
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment(), **(env or {})}
    given = {key: value for key, value in variables.items() if value is not None}
    ranks = [given] if processes == 1 else [given | rank for rank in _ranks(processes)]
    with TemporaryDirectory() as folder, _in(cwd or Path.cwd()):
        texts = [[Path(folder, f"{number}.{kind}") for kind in ("out", "err")] for number in range(processes)]
        started = []
        for (output, errors), rank in zip(texts, ranks, strict=True):
            with output.open("w") as first, errors.open("w") as second:
                started.append(warm.start(arguments, first, rank, second))
                assert not Server.address or isinstance(started[-1], warm.WarmProcess), "the server has gone"
        status = max((process.wait() for process in started), key=abs)
        printed, said = ("".join(rank[kind].read_text() for rank in texts) for kind in (0, 1))
    return subprocess.CompletedProcess(list(arguments), status, printed, said)


def run(
    target: Callable[..., None],
    *arguments: Any,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    processes: int = 1,
) -> subprocess.CompletedProcess[str]:
    """Call `target(*arguments)` in new processes; the rest is as for `run_module`.

    The target is a function of a module, found by its name; arguments go as JSON, paths as text.
    """
    call = {"path": sys.path, "module": target.__module__, "function": target.__name__, "arguments": arguments}
    paths = os.pathsep.join([str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {"PYTHONPATH": paths, **(env or {})}
    return run_module(["tests.call", json.dumps(call, default=os.fspath)], cwd=cwd, env=variables, processes=processes)


def cpu_seconds() -> float:
    """CPU seconds of the server and the children that it has seen end."""
    stat = Path(f"/proc/{Server.pid}/stat")
    if not Server.pid or not stat.is_file():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _ranks(processes: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


# --- the server ------------------------------------------------------------------------------------------------------


def _serve(listener: socket.socket, parent: int, log: Path) -> NoReturn:
    try:
        os.setsid()
        _forget_pytest(log)
        with os.fdopen(parent) as ending:
            select.select([ending.fileno(), listener.fileno()], [], [])  # imports only once there is something to do
            request = warm.serve(listener, MODULES, ending)
        if request is not None:
            signal.alarm(TIMEOUT)
            warm.leave(request)
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def _forget_pytest(log: Path) -> None:
    """Streams, warnings, logging and module paths as a new process has them, and no temporary folder to remove."""
    gc.set_threshold(700, 10, 10)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.detach()
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(descriptor, stream)
        setattr(sys, name, os.fdopen(stream, "w", closefd=False))
        setattr(sys, f"__{name}__", getattr(sys, name))
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    sys.path = ["", *(path for path in sys.path if not Path(path).is_relative_to(TESTS))]
