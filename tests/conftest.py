"""Shared fixtures."""

import gc
import os
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import bare, forked
from tests.cpu_seconds import (  # noqa: F401
    pytest_addoption,
    pytest_collection_finish,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)

ROOT = Path(__file__).resolve().parents[1]
RUN = "TSKD_TEST_RUN"  # environment: folder of this run of the tests

# read when torch is loaded: for tiny tensors a second thread costs more than it gives, on a busy machine far more
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real images and pretrained weights (not part of the project)."""
    folder = Path(os.environ.get("TSKD_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir() or not (folder / "weights").is_dir():
        pytest.skip(f"needs real images and weights in {folder} (set TSKD_SHARED to a folder with data/ and weights/)")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that all processes of this run share."""
    if not hasattr(config, "workerinput"):
        folder = TemporaryDirectory(prefix="tskd-", ignore_cleanup_errors=True)
        os.environ[RUN] = folder.name
        config.add_cleanup(folder.cleanup)


KINDS = {"docs": "unit", "tskd": "unit", "bundles": "bundle", "workflow": "process", "faults": "process"}


# the longest files first, so that of two workers none is left with one of them at the end
FIRST = ("workflow/test_train.py", "docs/test_tutorial.py", "bundles/test_multi_gpu.py", "faults", "workflow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its kind, by its folder where the file or the test does not say another one; sort them."""
    for item in items:
        if not {mark.name for mark in item.iter_markers()} & set(KINDS.values()):
            item.add_marker(KINDS[item.path.relative_to(ROOT / "tests").parts[0]])
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(ROOT / "tests").as_posix()
    return next((number for number, part in enumerate(FIRST) if path.startswith(part)), len(FIRST))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Have a process that others are forked from, which has seen no test."""
    if not getattr(session, "items", None) or session.config.option.collectonly:  # this process runs none
        return (yield)
    gc.collect()
    gc.freeze()  # or each collection visits all modules again
    gc.set_threshold(10_000, 10, 10)
    with TemporaryDirectory(prefix="tskd-") as folder, bare.shared(Path(os.environ[RUN])):
        os.environ.setdefault("TSKD_KEY_FILE", f"{folder}/key")  # of codes of patients: not the user's own
        forked.start(Path(folder))
        return (yield)
