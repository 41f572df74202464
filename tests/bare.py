"""Processes that are forked from one that has MONAI and nothing of this project, instead of each importing MONAI.

All test processes of a run share that one: the first that needs it starts it. It ends once all of them have, which it
sees on a FIFO that each of them holds open. In it nothing can be imported that a shipped student must not need; a
child may ask for the project, as a user's process has it. Without a fork (Windows, macOS) each is started anew.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

import tskd
from tskd.workflow import warm

BLOCKED = ("tskd", "peft", "diffusers", "transformers", "torchvision", "timm")
BLOCKER = f"""
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked by the test)", name=name)
blocker = Blocker()
sys.meta_path.insert(0, blocker)
"""
SERVER = f"""{BLOCKER}
import importlib.util, os
spec = importlib.util.spec_from_file_location("warm", {warm.__file__!r})
warm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(warm)
ending = open(os.open(sys.argv[2], os.O_RDONLY | os.O_NONBLOCK))
request = warm.serve(warm.listen(sys.argv[1]), ["monai.bundle"], ending)
if request is not None:
    if "PROJECT" in request["environment"]:
        sys.meta_path.remove(blocker)
        sys.path.insert(1, request["environment"]["PROJECT"])
    warm.leave(request)
"""
ANEW = """
import os, runpy
sys.path.insert(0, os.getcwd())
if "PROJECT" in os.environ:
    sys.meta_path.remove(blocker)
    sys.path.insert(1, os.environ["PROJECT"])
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class Server:
    """Where the process is; `folder` is None where there is none, `process` is set where this one has started it."""

    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Let the server live at least as long as the block.

    Args:
        folder: the same for all test processes of a run; a short path, as the system allows about 100 characters.
    """
    if sys.platform != "linux":
        yield
        return
    with FileLock(folder / "bare.lock"):
        if not (folder / "bare.fifo").exists():
            os.mkfifo(folder / "bare.fifo")
    held = os.open(folder / "bare.fifo", os.O_RDWR)
    Server.folder = folder
    try:
        yield
    finally:
        Server.folder = None
        os.close(held)


def run(arguments: Sequence[str], cwd: Path, project: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with `arguments` in the folder `cwd`, the first that Python looks into.

    Args:
        arguments: module and its arguments.
        cwd: working directory.
        project: whether the project can be imported.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    if project:
        variables["PROJECT"] = str(Path(tskd.__file__).parents[1])
    if Server.folder is None:
        command = [sys.executable, "-I", "-W", "ignore", "-c", BLOCKER + ANEW, *arguments]
        return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)
    variables[warm.VARIABLE] = _address(Server.folder)
    before = Path.cwd()
    os.chdir(cwd)
    try:
        with TemporaryDirectory() as name:
            output, errors = Path(name, "out"), Path(name, "err")
            with output.open("w") as printed, errors.open("w") as said:
                process = warm.start(arguments, printed, variables, said)
            assert isinstance(process, warm.WarmProcess), "the server has gone"
            return subprocess.CompletedProcess(list(arguments), process.wait(), output.read_text(), errors.read_text())
    finally:
        os.chdir(before)


def cpu_seconds() -> float:
    """CPU seconds of the server and the children that it has seen end, where this process has started it."""
    stat = Path(f"/proc/{Server.process.pid}/stat") if Server.process else None
    if stat is None or not stat.is_file():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _address(folder: Path) -> str:
    """Address of the server, which is started if it is not there."""
    address = folder / "bare.sock"
    with FileLock(folder / "bare.lock"), socket.socket(socket.AF_UNIX) as connection:
        if address.exists() and connection.connect_ex(str(address)) == 0:
            return str(address)  # a client that says nothing is forgotten
        address.unlink(missing_ok=True)
        command = [sys.executable, "-I", "-W", "ignore", "-c", SERVER, str(address), str(folder / "bare.fifo")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with (folder / "bare.log").open("a") as log:
            Server.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        while socket.socket(socket.AF_UNIX).connect_ex(str(address)) != 0:
            time.sleep(0.02)
            assert Server.process.poll() is None, (folder / "bare.log").read_text()
    return str(address)
