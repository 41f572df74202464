"""Whole experiments: a study's steps and commands, and the search over hyper-parameters.

Names load on first use: the steps of a study are processes of their own, which need few of them.
"""

from typing import TYPE_CHECKING

from tskd.lazy_names import lazy_names

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

__getattr__ = lazy_names(__name__, _HOME)
