"""Whole experiments: a study's steps and commands, and the search over hyper-parameters."""

from tskd.workflow.check_study import check_study
from tskd.workflow.schema import read_yaml
from tskd.workflow.steps import Cell, Step
from tskd.workflow.study import Study

__all__ = ["Cell", "Step", "Study", "check_study", "read_yaml"]
