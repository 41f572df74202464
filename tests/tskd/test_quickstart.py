"""The quickstart's commands and table."""

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from tskd.evaluation.rows import MetricRow, write_rows
from tskd.options import check_overrides, file_list
from tskd.quickstart import METHODS, quickstart_study, table


def test_every_override_of_every_step_names_a_key_of_its_configs() -> None:
    runs = [step for step in quickstart_study(seed=0).steps.values() if step.configs]
    assert len(runs) >= 9
    for step in runs:
        check_overrides(step.command)
        assert "run" in ConfigParser.load_config_files(file_list(step.command[3]))


def test_the_seed_draws_the_cohort_and_every_training() -> None:
    for step in quickstart_study(seed=7).steps.values():
        if "--seed" in step.command:
            assert step.command[step.command.index("--seed") + 1] == "7"
    seeded = {step.rule for step in quickstart_study(seed=7).steps.values() if "--seed" in step.command}
    assert seeded >= {"prepare", "teacher", "ddpm", "synthesise", "distil", "finetune", "evaluate"}


def test_steps_clear_only_folders_of_their_own() -> None:
    folders = [step.folder for step in quickstart_study(seed=0).steps.values() if step.folder]
    for folder in folders:
        assert folder.startswith("results/phantom/")
        assert not [other for other in folders if other != folder and Path(other).is_relative_to(folder)]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize(("tskd", "verdict"), [(0.8, "better"), (0.4, "not better")])
def test_the_table_says_who_wins(tmp_path: Path, tskd: float, verdict: str) -> None:
    for method in METHODS:
        (tmp_path / method).mkdir()
        value = tskd if method == "tskd" else 0.5
        rows = [MetricRow("toy", "8", method, "0", g, g, "liver", "dice", value) for g in "ab"]
        write_rows(tmp_path / method / "metrics.csv", rows)
        profile = {"parameters": 5_900_000, "gmac": 2.5, "ms_per_image": 42.0}
        (tmp_path / method / "profile.json").write_text(json.dumps(profile))
    text = table({method: tmp_path / method for method in METHODS})
    assert "2 test patients" in text
    assert f"distillation was {verdict} than" in text
    assert f"{tskd - 0.5:+.3f} mean Dice" in text
