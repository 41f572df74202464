"""Files that are read several times in a row: opened once, as long as they do not change."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import wraps
from itertools import islice
from typing import Any, TypeVar

from tskd.cpus import cpus

T = TypeVar("T")
Path = str | os.PathLike[str]

_SETTLED = 2.0  # seconds after a change; before, a second one might leave the times as they are
_NUMBER, _MEMORY = 64, 1 << 26  # results and bytes that are kept
_digests: dict[str, tuple[tuple[int, ...], str]] = {}  # path -> its identity then, its SHA-256


def once_a_file(size: Callable[[Any], int]) -> Callable[[Callable[[Any], T]], Callable[[Any], T]]:
    """Decorate a function of a path: its last results are kept while their files do not change.

    Callers must not change what they get. Files younger than two seconds are read anew each time.

    Args:
        size: bytes of a result; the last 64 results are kept, 64 MB of them at most.
    """

    def decorate(function: Callable[[Any], T]) -> Callable[[Any], T]:
        kept: OrderedDict[str, tuple[tuple[int, ...], T, int]] = OrderedDict()
        lock = threading.Lock()
        one_at_a_time = [threading.RLock() for _ in range(_NUMBER)]  # a file that two threads ask for is read once
        total = 0  # bytes of what is kept

        @wraps(function)
        def call(path: Any) -> T:
            nonlocal total
            name = os.fspath(path)
            with one_at_a_time[hash(name) % _NUMBER]:
                identity = _identity(name)
                with lock:
                    known = kept.get(name)
                if known is not None and known[0] == identity:
                    return known[1]
                result = function(path)
                if identity is not None and (taken := size(result)) <= _MEMORY:
                    with lock:
                        total += taken - (kept.pop(name)[2] if name in kept else 0)
                        kept[name] = identity, result, taken
                        while len(kept) > _NUMBER or total > _MEMORY:
                            total -= kept.popitem(last=False)[1][2]
                return result

        return call

    return decorate


@once_a_file(len)
def content(path: Path) -> bytes:
    """Return the bytes of a file, whose checksum `sha256` knows from then on.

    Raises:
        OSError: it cannot be read.
    """
    identity = _identity(path)
    with open(path, "rb") as file:
        content = file.read()
    _remember(path, identity, hashlib.sha256(content).hexdigest())
    return content


class _Opened(io.BytesIO):
    """The content of a file, which Pillow names in its errors as it names a file."""

    path: Path

    def __repr__(self) -> str:
        """Return the path in quotes."""
        return repr(os.fspath(self.path))


def opened(path: Path) -> io.BytesIO:
    """Return the content of a file as an open file.

    Raises:
        OSError: it cannot be read.
    """
    file = _Opened(content(path))
    file.path = path
    return file


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 checksum of a file; one that has not changed since is not read again."""
    identity = _identity(path)
    known, checksum = _digests.get(os.fspath(path), ((), ""))
    if identity is not None and known == identity:
        return checksum
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    _remember(path, identity, digest.hexdigest())
    return digest.hexdigest()


def read_ahead(items: Iterable[T], load: Callable[[T], object], window: int = 8) -> Iterator[T]:
    """Yield the items, while other threads call `load` for the next ones, so that what they read is kept.

    Args:
        items: what is yielded, in order.
        load: a function that fills a cache and may run in several threads; its errors are passed over, as they come
            again where the item is used.
        window: items ahead; the caches must hold as many and some more.
    """
    threads = min(cpus(), window)
    if threads < 2:
        yield from items
        return
    remaining = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        ahead: list[tuple[T, Future[object]]] = [(item, pool.submit(load, item)) for item in islice(remaining, window)]
        while ahead:
            item, future = ahead.pop(0)
            with suppress(Exception):
                future.result()
            ahead.extend((following, pool.submit(load, following)) for following in islice(remaining, 1))
            yield item


def settled(path: Path) -> bool:
    """Return whether a file is there, and is old enough for what was read of it to be kept."""
    return _identity(path) is not None


def _identity(path: Path) -> tuple[int, ...] | None:
    """Return what changes with the content; None for a file that is missing or was written a moment ago."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    changed = max(status.st_mtime, status.st_ctime)
    if not 0 <= changed <= time.time() - _SETTLED:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _remember(path: Path, identity: tuple[int, ...] | None, checksum: str) -> None:
    if identity is not None and identity == _identity(path):
        _digests[os.fspath(path)] = identity, checksum
