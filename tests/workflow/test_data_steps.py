"""The data of a study: what the preparation is told."""

from typing import Any

from tests.workflow.test_study import toy, value
from tskd.commands.prepare import prepare
from tskd.workflow import check_study
from tskd.workflow.data_steps import NAMED


def test_data_of_ones_own_are_called_as_the_study_calls_them() -> None:
    options: dict[str, dict[str, Any]] = {
        "liver": {},
        "mine": {},
        "nerve": {"name": "median"},
        "before": {"name": None},
    }
    config = toy(name="ours")
    (phantom,) = config["datasets"].values()
    config["datasets"] |= {
        dataset: {**phantom, "prepare": {"preparer": "volumes", "options": chosen}}
        for dataset, chosen in options.items()
    }
    study = check_study(config, "toy")
    commands = {dataset: study.prepare(next(study.cells(dataset))).command for dataset in config["datasets"]}
    named = {dataset: value(command, "name") for dataset, command in commands.items() if "--name" in command}
    assert named == {"liver": "liver", "mine": "ours", "nerve": "median"}
    before = f"{study.output}/before/split/dataset"  # the command of a study of before this, which then goes on
    assert commands["before"] == ("tskd.cli", "prepare", "volumes", "--output", before)


def test_the_preparers_that_are_told_a_name_are_those_that_take_one() -> None:
    arguments = {name: prepare[name].assemble_argument_collection() for name in prepare if name[0] != "-"}
    named = {name for name, each in arguments.items() if any("--name" in one.names for one in each)}
    assert named - {"nnunet"} == set(NAMED)  # which is called by nnU-Net's folder
