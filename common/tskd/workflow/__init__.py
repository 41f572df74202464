"""Whole experiments: a study's steps and commands, and the search over hyper-parameters.

Names load on first use: the steps of a study are processes of their own, which need few of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tskd.workflow.schema import read_yaml
    from tskd.workflow.steps import Cell, Step
    from tskd.workflow.study import Study
    from tskd.workflow.study_checks import check_study

_HOME = {
    "Cell": "steps",
    "Step": "steps",
    "Study": "study",
    "check_study": "study_checks",
    "read_yaml": "schema",
}

__all__ = [
    "Cell",
    "Step",
    "Study",
    "check_study",
    "read_yaml",
]


def __getattr__(name: str) -> Any:
    """Import the module of a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
