"""Snakemake on the project's studies: dry runs, a toy study that really runs, is killed and continues."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import Snakemake
from tskd.evaluation.rows import read_rows
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


def test_a_toy_study_is_killed_continues_and_repeats_only_what_changed(tmp_path: Path, snakemake: Snakemake) -> None:
    data = tmp_path / "results/phantom/split/dataset.done"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile"), "--configfile", str(TOY)]
    with (tmp_path / "killed.log").open("w") as log:
        first = subprocess.Popen(
            [*command, "--cores", "1"], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        while not data.is_file():
            assert first.poll() is None, (tmp_path / "killed.log").read_text()
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    prepared = data.read_text()

    assert snakemake(TOY, "--unlock").returncode == 0
    done = snakemake(TOY, "--rerun-incomplete")
    assert done.returncode == 0, done.stdout + done.stderr
    assert data.read_text() == prepared
    study = check_study(read_yaml(TOY), "toy")
    for cell in study.cells("phantom"):
        for method in ("teacher", "tskd"):
            rows = read_rows(tmp_path / str(study.model(cell, method).folder) / "metrics.csv")
            assert {(row.method, row.budget, row.seed) for row in rows} == {(method, "4", str(cell.seed))}
    assert "tskd" in (tmp_path / "results/phantom/report/report.html").read_text()

    again = snakemake(TOY, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr

    changed = read_yaml(TOY)
    settings = changed["methods"]["tskd"]["finetune"]["overrides"]
    changed["methods"]["tskd"]["finetune"] = {"overrides": {**settings, "learning_rate": 0.01}}  # the anchor is shared
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    found = snakemake(tmp_path / "changed.yaml", "--dry-run")
    wanted = {"finetune": 2, "evaluate": 2, "report": 1, "all": 1, "total": 6}
    assert jobs(found.stdout + found.stderr) == wanted
