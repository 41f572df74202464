"""A user error ends the process with its message alone; any other error keeps its traceback."""

import errno
import re
import subprocess
import sys

import pytest
import torch
from monai.transforms import LoadImaged

from tskd.errors import user_message

SCRIPT = """
from tskd.errors import TskdError, plain_errors
plain_errors()
{body}
"""
WRAPPED = """
try:
    try:
        raise TskdError("image 3: expected 1 channel, found 4")
    except ValueError as error:
        raise RuntimeError("Failed to evaluate run") from error
except RuntimeError:
    raise KeyError("outermost")
"""


def run(body: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("body", ["raise TskdError('image 3: expected 1 channel, found 4')", WRAPPED])
def test_only_the_message(body):
    done = run(body)
    assert done.returncode == 1
    assert done.stderr == "error: image 3: expected 1 channel, found 4\n"
    assert done.stdout == ""


def test_a_full_disk_is_named():
    """/dev/full refuses every write as a full disk does."""
    done = run("with open('/dev/full', 'w') as file: file.write('row')")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no space left on the disk. Free some and run the command again; what is finished is kept.\n"
    )


def test_other_errors_keep_their_traceback():
    done = run("1 / 0")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def _wrapped(error: Exception) -> RuntimeError:
    """As MONAI hands on what a transform or a config expression raises."""
    outer = RuntimeError("applying transform <object>")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/p7.png"), r"/data/p7\.png: expected the file"),
        (
            RuntimeError("LoadImage cannot find a suitable reader for file: /a/p7.b.png.\n  Please"),
            r"/a/p7\.b\.png: expected",
        ),
        (OSError(errno.ENOSPC, "No space", "/run/last.pt"), r"/run/last\.pt: no space left"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "^no space left"),  # safetensors
        (PermissionError(errno.EACCES, "Permission denied", "/run"), r"/run: expected leave to use it"),
        (OSError(errno.EROFS, "Read-only", "/run/log.csv"), r"/run/log\.csv: expected a folder to write to"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "num_workers: .*7"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "num_workers: .*pid 7"),
    ],
)
def test_faults_of_the_machine_are_named(error: Exception, words: str) -> None:
    message = user_message(_wrapped(error))
    assert message is not None
    assert re.search(words, message)
    assert user_message(_wrapped(KeyError("x"))) is None


def test_a_network_that_does_not_compile_is_named_in_one_line() -> None:
    """The wrapper that torch gives to whatever stopped its compiler, below the error that MONAI makes of it."""

    def no_compiler(*_: object) -> None:
        raise ImportError("model.so: file too short")

    try:
        try:
            torch.compile(torch.nn.Linear(2, 2), backend=no_compiler)(torch.ones(1, 2))
        except Exception as error:
            raise RuntimeError("Failed to evaluate ConfigExpression") from error
    except RuntimeError as error:
        message = user_message(error)
    assert message is not None
    assert message.startswith("compile: expected a network that torch.compile takes on this machine, found ")
    assert "file too short" in message
    assert "--compile False" in message
    assert "\n" not in message


def test_files_that_monai_does_not_read_are_named(tmp_path):
    """MONAI says the same of a file that is missing and of one that is damaged."""
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    for name, words in (("gone.png", "gone.png: expected the file, found none"), ("damaged.png", "found one damaged")):
        with pytest.raises((RuntimeError, OSError)) as raised:
            LoadImaged("image")({"image": str(tmp_path / name)})
        message = user_message(_wrapped(raised.value))
        assert message is not None
        assert words in message
        assert str(tmp_path / name) in message


def test_a_full_disk_in_a_thread_is_named():
    done = run(
        "import threading\n"
        "def write():\n    with open('/dev/full', 'w') as file: file.write('row')\n"
        "thread = threading.Thread(target=write); thread.start(); thread.join()\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
    )
    assert done.stderr.startswith("error: no space left on the disk.")
    assert done.stderr.count("Traceback") == 1
    assert "ZeroDivisionError" in done.stderr
