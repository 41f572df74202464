"""Snakemake on the project's studies: every step has its rule, and a file with problems stops before anything runs."""

import re
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import Snakemake
from tskd.workflow import check_study, read_yaml
from tskd.workflow.schema import WORKFLOW

TOY = Path(__file__).with_name("toy.yaml")


def jobs(output: str) -> dict[str, int]:
    """Rule -> number of jobs, from Snakemake's table."""
    table = output.rpartition("Job stats:")[2]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


@pytest.mark.parametrize("name", ["paper", "shared"])
def test_a_dry_run_shows_every_step(name: str, snakemake: Snakemake) -> None:
    study = check_study(read_yaml(WORKFLOW / f"{name}.yaml"), name)
    done = snakemake(WORKFLOW / f"{name}.yaml", "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    found = jobs(done.stdout + done.stderr)
    assert found["total"] == len(study.steps) + 1  # the rule `all`
    assert found["teacher"] == sum(step.rule == "teacher" for step in study.steps.values())


def test_every_step_has_a_rule_also_of_all_labels_and_of_labelled_images_alone(
    tmp_path: Path, snakemake: Snakemake
) -> None:
    config = read_yaml(TOY)
    config["datasets"]["phantom"]["budgets"] = [4, "all"]
    config["synthesis"] = {"num_images": 4}
    config["pretraining"]["distilled"]["transfer"] = {"real": "labelled", "synthetic": 3}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = snakemake(tmp_path / "study.yaml", "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    found = jobs(done.stdout + done.stderr)
    assert found["transfer"] == 3
    assert found["total"] == len(check_study(config, "study").steps) + 1
    config["synthesis"]["real"] = "labelled"
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = snakemake(tmp_path / "study.yaml", "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    found = jobs(done.stdout + done.stderr)
    assert (found["ddpm"], found["synthesise"], found["transfer"]) == (2, 2, 4)
    assert found["total"] == len(check_study(config, "study").steps) + 1


def test_a_file_with_problems_stops_before_anything_runs(tmp_path: Path, snakemake: Snakemake) -> None:
    study = tmp_path / "wrong.yaml"
    study.write_text(TOY.read_text().replace("seeds: [0, 1]", "seeds: one").replace("in_channels: 1", "in_channels: 2"))
    done = snakemake(study, "--dry-run")
    assert done.returncode != 0
    assert "seeds: expected array, found 'one'" in done.stderr
    assert "datasets/phantom/in_channels: expected one of 1, 3, found 2" in done.stderr
