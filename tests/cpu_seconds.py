"""`pytest --cpu`: CPU seconds of each test file, of this process and the processes that it has waited for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from tests import bare, forked

KEY = "cpu seconds"
START = "start and collection"
_last = 0.0
_start: list[float] = []


def _seconds() -> float:
    return sum(os.times()[:4]) + forked.cpu_seconds() + bare.cpu_seconds()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--cpu", action="store_true", help="show the CPU seconds of each test file")


def pytest_collection_finish() -> None:
    """Note what starting and collecting cost, for the first test's report."""
    global _last
    _last = _seconds()
    _start.append(_last)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Note what was spent since the test before."""
    global _last
    if _start:
        item.user_properties.append((START, _start.pop()))
    if call.when == "teardown":
        now = _seconds()
        item.user_properties.append((KEY, now - _last))
        _last = now
    return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the files in the order of their cost."""
    if not config.getoption("--cpu"):
        return
    spent: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":
                for key, value in report.user_properties:
                    if key in (KEY, START):
                        spent[report.nodeid.partition("::")[0] if key == KEY else START] += value
    terminalreporter.section(f"CPU seconds: {sum(spent.values()):.0f}")
    for name, seconds in spent.most_common():
        terminalreporter.write_line(f"{seconds:7.1f} {name}")
