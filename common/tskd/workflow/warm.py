"""A process that has imported torch and MONAI already, and forks to run a module: `python -m MODULE` without the wait.

`import monai.bundle` takes 7 to 9 seconds of a processor, once for each step of a study. `python -m tskd.workflow.warm
SOCKET [MODULE ...]` imports the modules, listens on a Unix socket and forks for each request; the child has the
client's standard output, environment, working directory and arguments, and its exit status goes back to the client. The
server itself starts no threads and asks for no GPU, as neither survives a fork. It ends when its standard input does.

Where there is no fork (Windows), or the server has gone, `start` starts the module in the ordinary way.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol

VARIABLE = "TSKD_WARM"  # environment: the socket
MODULES = ("monai.bundle", "ignite.engine", "tskd.handlers", "tskd.networks.bundle_teacher",
           "tskd.networks.student_start", "tskd.losses", "tskd.distillation", "tskd.evaluation.writer",
           "tskd.data.checks", "tskd.data.sampler", "tskd.data.transforms", "tskd.inferers",
           "tskd.schedules")  # fmt: skip
GRACE = 10.0  # seconds between asking a child to end and killing it


class Process(Protocol):
    """What `start` returns: the part of `subprocess.Popen` that a step uses."""

    def poll(self) -> int | None:
        """Return the exit status as from `wait`, or None where it has not ended yet."""

    def wait(self) -> int:
        """Wait for the end; the exit status, or minus the number of the signal that ended it."""

    def terminate(self) -> None:
        """Ask the process to end."""


class WarmProcess:
    """A module that runs in a fork of the server."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status as from `wait`, or None where it has not ended yet."""
        if self._status is None and not select.select([self._connection], [], [], 0)[0]:
            return None
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; the exit status, or minus the number of the signal that ended it."""
        if self._status is None:
            answer = b""
            while part := self._connection.recv(64):
                answer += part
            # without an answer the server was killed, its children with it
            self._status = int(answer) if answer else -int(signal.SIGKILL)
        return self._status

    def terminate(self) -> None:
        """Ask the process to end."""
        with contextlib.suppress(OSError):
            self._connection.sendall(b"t")


def start(
    command: Sequence[str],
    output: IO[str] | None,
    environment: Mapping[str, str],
    errors: IO[str] | None = None,
) -> Process:
    """Start `python -m` with `command`.

    Args:
        command: a module and its arguments.
        output: file for its output; None for this process's own two streams.
        environment: its variables; `VARIABLE` says where the server is.
        errors: file for its standard error, `output` by default.
    """
    first = 1 if output is None else output.fileno()
    second = errors.fileno() if errors is not None else 2 if output is None else first
    address = environment.get(VARIABLE)
    if address and hasattr(socket, "AF_UNIX"):
        with contextlib.suppress(OSError):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address)
            request = {"command": list(command), "environment": dict(environment), "folder": os.getcwd()}
            content = json.dumps(request).encode()
            socket.send_fds(connection, [len(content).to_bytes(8, "big")], [first, second])
            connection.sendall(content)
            return WarmProcess(connection)
    return subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=first, stderr=second, env=environment
    )


@contextlib.contextmanager
def server(folder: Path, log: Path, modules: Sequence[str] = MODULES) -> Iterator[dict[str, str]]:
    """Start a server for the block; yield the environment with which `start` finds it, empty without a fork.

    One that is there already (this process is a fork of it) serves as well.

    Args:
        folder: where the socket is made; a short path, as the system allows about 100 characters.
        log: file for what goes wrong in the server.
        modules: what it imports.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin":  # there the system's libraries do not survive a fork
        yield {}
        return
    if VARIABLE in os.environ:
        yield {VARIABLE: os.environ[VARIABLE]}
        return
    address = folder / "warm.sock"
    # or a first look at the GPU, in the server, would spoil CUDA in all its children
    environment = {**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tskd.workflow.warm", str(address), *modules], stdin=subprocess.PIPE,
            stdout=errors, stderr=errors, env=environment, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    while not address.exists() and process.poll() is None:
        time.sleep(0.02)
    try:
        yield {VARIABLE: str(address)}
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE + 5)


# --- the server ------------------------------------------------------------------------------------------------------


def listen(address: str) -> socket.socket:
    """Return the server's socket; a client that comes before `serve` waits."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(64)
    os.rename(f"{address}.new", address)  # who sees the file can connect
    return listener


def serve(listener: socket.socket, modules: Sequence[str], parent: IO[str]) -> dict[str, Any] | None:
    """Import and fork; returns the request in a child, for `leave`, and None in the server when `parent` ends."""
    for module in modules:
        import_module(module)
    gc.freeze()  # a collection in a child would copy all that it visits
    children: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(parent, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(timeout=0.1):
                if key.fileobj is parent:
                    _end(children)
                    return None
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    request, descriptors = _receive(connection)
                    pid = os.fork() if request else -1
                    if pid == 0:
                        os.setpgid(0, 0)
                        selector.close()
                        listener.close()
                        for connected in (connection, *children.values()):
                            connected.close()
                        return {**request, "descriptors": descriptors}
                    for descriptor in descriptors:
                        os.close(descriptor)
                    if pid > 0:
                        children[pid] = connection
                        selector.register(connection, selectors.EVENT_READ, pid)
                elif key.data in children:  # a wish to end, or a client that has gone
                    _signal(key.data, signal.SIGTERM)
                    if not children[key.data].recv(1):
                        selector.unregister(children[key.data])
            _reap(children, selector)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return a request, empty from a client that broke off, and the file descriptors for its output and errors."""
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 2)
    size, content = int.from_bytes(head, "big"), b""
    while len(content) < size and (part := connection.recv(size - len(content))):
        content += part
    if len(descriptors) < 2 or len(content) < size:
        return {}, list(descriptors)
    return json.loads(content), list(descriptors)


def _reap(children: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    """Tell the clients of children that have ended."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            connection = children.pop(pid)
            with contextlib.suppress(KeyError):
                selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            connection.close()


def _end(children: dict[int, socket.socket]) -> None:
    """End all children: first politely."""
    for pid in children:
        _signal(pid, signal.SIGTERM)
    until = time.monotonic() + GRACE
    for pid in children:
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if time.monotonic() > until:
                _signal(pid, signal.SIGKILL)
            time.sleep(0.05)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


# --- a child ---------------------------------------------------------------------------------------------------------


def _run(request: Mapping[str, Any]) -> None:
    """Be the module: as `python -m` with the request's arguments would."""
    for stream, descriptor in enumerate(request["descriptors"], start=1):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    module, *arguments = request["command"]
    sys.argv = [module, *arguments]
    sys.path[0] = request["folder"]
    for text in (sys.stdout, sys.stderr):
        text.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    import numpy as np
    import torch

    if torch.cuda._is_in_bad_fork():  # something has looked at the GPU all the same
        os.execv(sys.executable, [sys.executable, "-m", *request["command"]])
    np.random.seed(None)
    # the variable is read when torch is loaded; and after a fork torch remakes its pool of threads when their number is
    # next set, where two threads at once find none ("Invalid thread pool!"): so here, while there is one
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of a list the first counts
    torch.set_num_threads(int(threads) if threads.isdecimal() and int(threads) else torch.get_num_threads())
    if os.environ.get("PYTHONWARNINGS") == "ignore":
        warnings.simplefilter("ignore")
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def leave(request: Mapping[str, Any]) -> None:
    """Run the request and end this process, without the second that Python takes to clear away 6,500 modules."""
    status = 1
    try:
        _run(request)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 255)


if __name__ == "__main__":
    wanted = serve(listen(sys.argv[1]), sys.argv[2:], sys.stdin)
    if wanted is not None:
        leave(wanted)
