"""Files that are read several times are opened once, and never remembered when they have changed."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tskd import file_content
from tskd.file_content import content, once_a_file, opened, read_ahead, sha256


def write(path: Path, data: bytes, age: float = 10) -> Path:
    """Write a file that looks `age` seconds old; its change time, which nobody can set, is made to look so, too."""
    path.write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture(autouse=True)
def _later(monkeypatch):
    """As if the files of a test had been written long ago."""
    now = time.time
    monkeypatch.setattr(file_content.time, "time", lambda: now() + 60)


def opens(monkeypatch, path: Path) -> list[str]:
    """Names of the files that are opened from now on."""
    seen: list[str] = []
    plain = open

    def counted(file, *args, **options):
        seen.append(os.fspath(file))
        return plain(file, *args, **options)

    monkeypatch.setattr("builtins.open", counted)
    return seen


def test_a_file_is_opened_once_for_content_and_checksum(tmp_path, monkeypatch):
    path = write(tmp_path / "a", b"one")
    seen = opens(monkeypatch, path)
    assert content(path) == opened(path).read() == b"one"
    assert sha256(path) == sha256(str(path)) == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert seen == [str(path)]


@pytest.mark.parametrize("same_size", [True, False])
def test_a_changed_file_is_read_anew(tmp_path, same_size):
    path = write(tmp_path / "a", b"one")
    first = content(path), sha256(path)
    before = path.stat()
    write(path, b"two" if same_size else b"three")
    if same_size:  # also where a tool has set the old time of modification: the time of change tells
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content(path) != first[0]
    assert sha256(path) != first[1]


def test_a_young_file_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(file_content.time, "time", lambda: os.stat(tmp_path / "a").st_ctime + 0.5)
    path = tmp_path / "a"
    path.write_bytes(b"one")
    seen = opens(monkeypatch, path)
    assert [content(path), content(path)] == [b"one"] * 2
    assert len(seen) == 2


def test_results_are_kept_within_a_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(file_content, "_MEMORY", 10)
    calls = []

    @once_a_file(len)
    def read(path: Path) -> bytes:
        calls.append(path.name)
        return path.read_bytes()

    small = [write(tmp_path / f"{k}", b"1234") for k in range(3)]
    large = write(tmp_path / "large", b"1" * 11)
    for path in (small[0], small[1], small[0], large, large, small[2], small[0]):
        read(path)
    assert calls == ["0", "1", "large", "large", "2", "0"]  # the third small one has driven out the first


def test_reading_ahead_keeps_order_and_meets_errors_where_they_belong():
    used, loaded = [], []

    def load(item):
        loaded.append((item, threading.current_thread()))
        if item == 3:
            raise ValueError(item)

    for item in read_ahead(range(20), load, window=4):
        assert item in [one for one, _ in loaded]
        assert len(loaded) <= item + 6
        used.append(item)
    assert used == list(range(20))
    assert threading.current_thread() not in {thread for _, thread in loaded}


def test_two_threads_read_ahead_at_once(monkeypatch):
    monkeypatch.setattr(file_content, "cpus", lambda: 2)
    met = threading.Barrier(2, timeout=30)
    assert list(read_ahead("ab", lambda _: met.wait())) == ["a", "b"]
    assert not met.broken


def test_a_file_that_two_threads_ask_for_is_read_once(tmp_path):
    path, calls = write(tmp_path / "a", b"one"), []

    @once_a_file(len)
    def read(path: Path) -> bytes:
        calls.append(path)
        time.sleep(0.3)  # until the other asks, too
        return path.read_bytes()

    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(read, path) for _ in range(2))
        assert first.result() is second.result()
    assert calls == [path]


def test_errors_name_the_file(tmp_path):
    from PIL import Image

    path = write(tmp_path / "a.png", b"no picture")
    with pytest.raises(OSError, match=r"a\.png"):
        Image.open(opened(path))
