"""The quickstart's commands."""

from pathlib import Path

from monai.bundle import ConfigParser

from tskd.options import check_overrides, file_list
from tskd.quickstart import quickstart_study


def test_every_override_of_every_step_names_a_key_of_its_configs() -> None:
    runs = [step for step in quickstart_study(seed=0).steps.values() if step.configs]
    assert len(runs) >= 8
    for step in runs:
        check_overrides(step.command)
        assert "run" in ConfigParser.load_config_files(file_list(step.command[3]))


def test_the_seed_draws_the_cohort_and_every_training() -> None:
    for step in quickstart_study(seed=7).steps.values():
        if "--seed" in step.command:
            assert step.command[step.command.index("--seed") + 1] == "7"
    seeded = {step.rule for step in quickstart_study(seed=7).steps.values() if "--seed" in step.command}
    assert seeded >= {"prepare", "teacher", "soft_labels", "distil", "finetune", "evaluate"}


def test_steps_clear_only_folders_of_their_own() -> None:
    folders = [step.folder for step in quickstart_study(seed=0).steps.values() if step.folder]
    for folder in folders:
        assert folder.startswith("results/phantom/")
        assert not [nested for nested in folders if nested != folder and Path(nested).is_relative_to(folder)]
    assert len(set(folders)) == len(folders)
