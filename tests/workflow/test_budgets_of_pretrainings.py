"""A pretraining that sees labels sees those of the budget only; one without is made once for all budgets."""

from typing import Any

import pytest

from tests.workflow.test_study import toy, value
from tskd.workflow import check_study


def test_a_rival_whose_batches_tell_labelled_images_from_others_is_trained_for_each_budget() -> None:
    config = toy()
    config["pretraining"]["mae"] = {
        "transfer": {"real": True}, "configs": ["mae"], "overrides": {"batch_ratio": {"labelled": 1, "unlabelled": 3}}
    }  # fmt: skip
    config["methods"]["mae"] = {"pretrain": "mae", "finetune": {}}
    rival = check_study(config, "toy").steps["results/phantom/split/rival/mae/budget-4/seed-1/models/model.pt"].command
    assert value(rival, "num_labelled") == "4"


@pytest.mark.parametrize(
    ("configs", "own", "shared"),
    [
        (["distill", "averaged", "joint", "semi", "fixmatch"], {}, {}),
        (["distill"], {"labelled_weight": 1.0}, {}),
        (["distill"], {}, {"labelled_weight": 0.5}),
        (["mae"], {}, {"batch_ratio": {"labelled": 1, "unlabelled": 3}}),
        (["averaged"], {}, {}),  # trains on the labels alone
    ],
)
def test_a_pretraining_that_sees_labels_sees_those_of_the_budget_only(
    configs: list[str], own: dict[str, Any], shared: dict[str, Any]
) -> None:
    config = toy()
    config["overrides"]["student"] |= shared
    config["pretraining"]["fix"] = {"transfer": {"real": True}, "configs": configs, "overrides": own}
    config["methods"]["fix"] = {"pretrain": "fix", "finetune": {}}
    step = check_study(config, "toy").steps["results/phantom/split/rival/fix/budget-4/seed-1/models/model.pt"]
    assert value(step.command, "num_labelled") == "4"


@pytest.mark.parametrize("configs", [["mae"], ["mocov3"], ["distill", "task_agnostic"]])
def test_a_pretraining_without_labels_is_one_for_all_budgets(configs: list[str]) -> None:
    config = toy()
    config["pretraining"]["none"] = {"transfer": {"real": True}, "configs": configs}
    config["methods"]["none"] = {"pretrain": "none", "finetune": {}}
    step = check_study(config, "toy").steps["results/phantom/split/rival/none/seed-1/models/model.pt"]
    assert "--num_labelled" not in step.command
