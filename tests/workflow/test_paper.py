"""The paper's study: what it holds, what it costs, and a cut-down copy of it that really runs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import forked
from tskd.errors import TskdError
from tskd.evaluation.rows import read_rows
from tskd.workflow import check_study, read_yaml
from tskd.workflow.cards import CARDS, FLOOR, card_named, step_seconds
from tskd.workflow.gpu_hours import gpu_hours, table
from tskd.workflow.schema import WORKFLOW

METHODS = ("teacher", "teacher_rank0", "scratch", "tskd_500", "mae")


def paper() -> dict[str, Any]:
    return read_yaml(WORKFLOW / "paper.yaml")


def test_it_holds_what_the_paper_compares() -> None:
    config = paper()
    text = (WORKFLOW / "paper.yaml").read_text()
    assert "check the paper" not in text
    assert set(config["datasets"]) == {"kidneyus", "autooral", "chaos", "ph2", "drive"}
    assert 80 in config["datasets"]["kidneyus"]["budgets"]
    assert 100 in config["datasets"]["chaos"]["budgets"]
    tuning = [teacher["train"]["overrides"] for teacher in config["teachers"].values() if "train" in teacher]
    assert {t.get("fine_tuning#rank", t.get("fine_tuning#mode")) for t in tuning} == {"decoder", 4, 8, 16, 32, "full"}
    sizes = {p["transfer"].get("synthetic") for p in config["pretraining"].values()}
    assert {500, 1000, 2000, 3000} <= sizes
    assert {"task_agnostic", "mae", "mocov3", "scratch"} <= set(config["methods"])
    assert len(check_study(config).folds) == 3


def test_jobs_and_hours_on_a_named_card() -> None:
    study = check_study(paper())
    counts = gpu_hours(study, card_named("rtx 4090"))
    assert sum(count.jobs for count in counts.values()) == len(study.steps)
    cells = sum(len(list(study.cells(dataset))) for dataset in study.config["datasets"])
    assert counts["teacher"].jobs == 6 * cells == 180
    assert counts["prepare"].hours == counts["report"].hours == 0
    assert 20 < sum(count.hours for count in counts.values()) < 200
    assert counts["ddpm"].hours > counts["teacher"].hours > counts["soft_labels"].hours > 0
    assert "in all" in table(counts, "RTX 4090")


def test_cards() -> None:
    assert card_named("A100_80GB") == CARDS["A100 80GB"]
    assert step_seconds(0.1, CARDS["T4"]) == FLOOR
    assert step_seconds(10_000, CARDS["L4"]) == pytest.approx(20_000 / (121_000 * 0.3))
    with pytest.raises(TskdError, match="found 'RTX 4091'; close names: RTX 4090"):
        card_named("RTX 4091")


def test_a_cut_down_copy_runs_on_the_virtual_cohort(tmp_path: Path) -> None:
    config = paper()
    del config["folds"]  # the cohort has a split of its own
    config["datasets"] = {
        "phantom": {
            "prepare": {
                "preparer": "phantom",
                "options": {"num-patients": 8, "num-validation": 1, "num-test": 1, "image-size": 64, "num-slices": 5},
            },
            "num_classes": 5,
            "in_channels": 1,
            "budgets": [4],
        }
    }
    config["methods"] = {name: config["methods"][name] for name in METHODS}
    used = {method["pretrain"] for method in config["methods"].values() if "pretrain" in method}
    config["pretraining"] = {name: config["pretraining"][name] for name in used}
    config["teachers"] = {name: config["teachers"][name] for name in ("rank0", "rank4")}
    for teacher in config["teachers"].values():
        del teacher["fetch"]
        teacher["overrides"] = {"vfm": "mobile_sam", "pretrained": "@network_def"}
    config["overrides"] = {
        "all": {"device": "$torch.device('cpu')"},
        "teacher": {"image_size": 64},
        "student": {"image_size": 64, "network_def#hidden_size": 48, "network_def#mlp_dim": 96},
        "ddpm": {
            "image_size": 32, "batch_size": 2, "steps": 2, "val_images": 2,
            "network_def#unet#block_out_channels": [16, 16],
            "network_def#unet#down_block_types": ["DownBlock2D", "DownBlock2D"],
            "network_def#unet#up_block_types": ["UpBlock2D", "UpBlock2D"], "network_def#unet#layers_per_block": 1,
            "network_def#unet#attention_head_dim": 8,
        },
    }  # fmt: skip
    gate = {"gate#quantile": 1.0, "gate#copies": 0}  # of few patients
    config["synthesis"]["sample"] = {"overrides": {"steps": 2, "batch_size": 4, **gate}}
    config["report"] = {"reference": "tskd_500"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = subprocess.run(
        [sys.executable, "-m", "tskd.cli", "train", "study.yaml", "--try", "--cores", "1"], cwd=tmp_path, text=True,
        capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", **forked.environment()},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = list((tmp_path / "results/paper-try/phantom/split").rglob("metrics.csv"))
    assert {row.method for path in found for row in read_rows(path)} == set(METHODS)
    assert (tmp_path / "results/paper-try/phantom/report/report.html").is_file()
