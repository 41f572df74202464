"""Whole experiments: a study's steps and commands, and the search over hyper-parameters."""

from common.workflow.check import check_study
from common.workflow.schema import read_yaml
from common.workflow.steps import Cell, Step
from common.workflow.study import Study

__all__ = ["Cell", "Step", "Study", "check_study", "read_yaml"]
