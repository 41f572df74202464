"""The study of labels saved: every method sees as much, starts alike, and has the same labels."""

from typing import Any

import pytest

from tests.workflow.test_joint_study import joint
from tests.workflow.test_study import value
from tskd.errors import TskdError
from tskd.workflow import check_study, read_yaml
from tskd.workflow.schema import WORKFLOW
from tskd.workflow.study import Study

AT = "results/label_efficiency/usgra/fold-1"
STEPS_AN_EPOCH = 50  # of the student's train.json


@pytest.fixture(scope="module")
def study() -> Study:
    return check_study(read_yaml(WORKFLOW / "label_efficiency.yaml"))


def _images(overrides: dict[str, Any]) -> int:
    return overrides["max_epochs"] * overrides["batch_size"] * STEPS_AN_EPOCH


def test_all_students_see_12800_images(study: Study) -> None:
    first = _images(study.config["methods"]["supervised_400"]["finetune"]["overrides"])
    assert first == 3200
    for name, method in study.config["methods"].items():
        if "pretrain" in method:
            assert first + _images(study.config["pretraining"][method["pretrain"]]["overrides"]) == 12_800, name


@pytest.mark.parametrize("rule_and_name", ["rival/longer", "rival/fixmatch", "rival/mean_teacher", "distil/tskd"])
def test_methods_start_from_the_same_training_and_have_the_same_labels(study: Study, rule_and_name: str) -> None:
    steps = study.steps
    step = steps[f"{AT}/{rule_and_name}/budget-10/seed-1/models/model.pt"]
    assert value(step.command, "init_weights") == f"{AT}/finetune/supervised_400/budget-10/seed-1/models/model.pt"
    assert value(step.command, "num_labelled") == "10"
    assert ("--soft_labels" in step.command) == (rule_and_name == "distil/tskd")


def test_budgets_are_those_of_the_plan(study: Study) -> None:
    budgets = {name: [cell.budget for cell in study.cells(name) if not cell.seed] for name in study.config["datasets"]}
    assert set(budgets["chaos_mr"]) == {"1 patient", "2 patients", "3 patients", "5 patients", "all"}
    assert set(budgets["isic2017"]) == set(budgets["usgra"]) == {10, 20, 40, 80}
    assert set(budgets["chase_db1"]) == {2, 4, 8}


def test_a_pretraining_that_starts_from_labels_is_a_method_without_a_teacher() -> None:
    config = joint()
    config["pretraining"]["alone"] = {"start": "scratch", "transfer": {"real": True}, "configs": ["distill", "joint"]}
    config["methods"]["alone"] = {"pretrain": "alone"}
    assert "results/phantom/split/rival/alone/budget-4/seed-0/metrics.csv" in check_study(config).steps
    del config["pretraining"]["alone"]["start"]
    with pytest.raises(TskdError, match="methods/alone: expected finetune, as its model has not seen the task"):
        check_study(config)
