"""`tskd train`: a toy study is stopped, goes on, fails, and repeats only what changed."""

import copy
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import forked
from tests.workflow.conftest import Snakemake
from tests.workflow.test_snakefile import TOY, jobs
from tskd.cli import main
from tskd.evaluation.rows import read_rows
from tskd.workflow import Study, check_study, read_yaml
from tskd.workflow.chain import shortened
from tskd.workflow.follow import Follower, duration
from tskd.workflow.plan import steps_to_run
from tskd.workflow.schema import WORKFLOW
from tskd.workflow.step_log import read_history, write_beginning, write_end
from tskd.workflow.steps import hidden
from tskd.workflow.train import Runner, failure

AT = "results/phantom/split"
SECOND_SEED = {**read_yaml(TOY), "seeds": [1]}  # one, and not the default: test_snakefile plans both


class Ran:
    """A toy study that was stopped in its first training, and then ran to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "toy.yaml").write_text(yaml.safe_dump(SECOND_SEED, sort_keys=False))
        self.study = check_study(SECOND_SEED, "toy")
        self.stopped = self._stopped()
        self.prepared = (folder / f"{AT}/dataset/dataset.json").stat().st_mtime_ns
        self.second = self._train().communicate(timeout=900)[0]

    def _train(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tskd.cli", "train", "toy.yaml", "--cores", "1"], cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **forked.environment()},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background may ignore it
        )  # fmt: skip

    def _stopped(self) -> str:
        process, teacher = self._train(), self.folder / f"{AT}/teachers/small/budget-4/seed-1"
        while (history := read_history(f"{teacher}.log")) is None or history.state != "running":
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 130
        self.after_stop = read_history(f"{teacher}.log")
        return output


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("train"))


def test_ctrl_c_ends_the_steps_and_says_how_to_go_on(ran: Ran) -> None:
    assert ran.stopped.splitlines()[-1] == "stopped. It goes on from there with: tskd train toy.yaml --cores 1"
    assert ran.after_stop is not None
    assert ran.after_stop.state == "stopped"
    assert "Traceback" not in ran.stopped


def test_it_goes_on_with_what_is_not_finished_one_line_a_step(ran: Ran) -> None:
    assert (ran.folder / f"{AT}/dataset/dataset.json").stat().st_mtime_ns == ran.prepared
    lines = ran.second.splitlines()
    head = re.search(r"^(\d+) steps, (\d+) of them done before; log: results/train.log$", ran.second, re.MULTILINE)
    assert head is not None
    count, before = map(int, head.groups())
    assert count == len(ran.study.steps)
    assert 1 <= before < count
    ended = [line for line in lines if re.match(rf" *\d+/{count - before} ", line)]
    assert len(ended) == count - before
    assert "Snakemake" not in ran.second
    assert "Building DAG" in (ran.folder / "results/train.log").read_text()


def test_every_model_is_evaluated_and_reported(ran: Ran) -> None:
    for cell in ran.study.cells("phantom"):
        for method in ("teacher", "tskd"):
            rows = read_rows(ran.folder / str(ran.study.model(cell, method).folder) / "metrics.csv")
            assert {(row.method, row.budget, row.seed) for row in rows} == {(method, "4", str(cell.seed))}
    page = (ran.folder / "results/phantom/report/report.html").read_text()
    assert "<h1>toy: segmentation report</h1>" in page
    for text in ("student, distilled from small, then trained on the labels", "teacher: soft labels", "<details>"):
        assert text in page


def test_a_student_whose_network_the_study_changed_ships(ran: Ran) -> None:
    """The toy study's network_def#hidden_size and the like are in its run, not in a config."""
    folder = ran.folder / f"{AT}/finetune/tskd/budget-4/seed-1"
    data = ["--dataset-file", str(ran.folder / AT / "dataset/dataset.json")]
    output = ran.folder / "toy_segmentation"
    assert main(["ship", "--run", str(folder), "--output", str(output), "--force", *data]) == 0
    assert '"hidden_size": 48' in (output / "configs/inference.json").read_text()


def test_the_end_says_what_came_of_it(ran: Ran) -> None:
    """At this length nobody has learned anything, which is said, and no bundle is shipped as if it had."""
    end = ran.second[ran.second.index("\nphantom\n") :]
    assert "better" not in end
    assert "report: results/phantom/report/report.html" in end
    assert "no bundle was shipped: " in end


def test_nothing_is_repeated_but_what_changed_and_what_follows(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, snakemake: Snakemake, tmp_path: Path
) -> None:
    monkeypatch.chdir(ran.folder)
    assert steps_to_run(ran.study) == []
    changed = copy.deepcopy(SECOND_SEED)
    settings = changed["methods"]["tskd"]["finetune"]["overrides"]
    changed["methods"]["tskd"]["finetune"] = {"overrides": {**settings, "learning_rate": 0.01}}  # the anchor is shared
    steps = [step.rule for step in steps_to_run(check_study(changed, "changed"))]
    assert steps == ["finetune", "evaluate", "report"]
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    found = snakemake(tmp_path / "changed.yaml", "--dry-run", "--directory", str(ran.folder))
    wanted = {"finetune": 1, "evaluate": 1, "report": 1, "all": 1, "total": 4}
    assert jobs(found.stdout + found.stderr) == wanted  # Snakemake sees the same


def test_an_error_begins_with_its_cause_then_the_log_then_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = one_seed()
    (step,) = [step for step in study.steps.values() if step.rule == "teacher"]
    Path(step.path).parent.mkdir(parents=True)
    with open(step.log, "w") as file:
        write_beginning(file, step.command)
        write_end(file, "failed", 1.0, "num_labelled: expected at most 10, found 20")
    follower = Follower(list(study.steps.values()), {}, 1, since=1.0)
    follower.look()
    cause, log, end = failure(follower, tmp_path / "train.log", Runner("tskd train toy.yaml")).splitlines()
    assert cause.startswith("teacher: fine-tuning of the foundation model (")
    assert cause.endswith(": num_labelled: expected at most 10, found 20")
    assert log == f"log: {AT}/teachers/small/budget-4/seed-0.log"
    assert end == "Once that is mended, it goes on from there with: tskd train toy.yaml"
    (tmp_path / "train.log").write_text("Building DAG\nerror: results/x: expected an empty folder\nExiting\n")
    follower.histories.clear()
    assert failure(follower, tmp_path / "train.log", Runner("a")).startswith(
        "results/x: expected an empty folder\nlog: "
    )


# --- time left -------------------------------------------------------------------------------------------------------


def write_log(study: Study, rule: str, at: str, state: str = "", seconds: float = 0.0) -> None:
    """The log of a step that began at `at` o'clock (UTC), and ended in `state` after so many seconds."""
    for step in study.steps.values():
        if step.rule == rule:
            Path(step.log).parent.mkdir(parents=True, exist_ok=True)
            end = f"[tskd] 1970-01-01T{at}+00:00 {state} after {seconds} s\n" if state else ""
            Path(step.log).write_text(f"[tskd] 1970-01-01T{at}+00:00 began: x\n{end}")


def one_seed() -> Study:
    return check_study({**read_yaml(TOY), "seeds": [0]}, "toy")


def test_the_time_left_follows_the_speed_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = one_seed()
    steps = list(study.steps.values())
    follower = Follower(steps, {step.path: 10.0 for step in steps}, slots=1, since=100.0)
    assert follower.left(100.0) == 10.0 * len(steps)
    write_log(study, "prepare", "00:01:41", "finished", 1.0)  # nobody has measured it: it says nothing of the others
    assert [step.rule for step, _ in follower.look()] == ["prepare"]
    assert follower.left(120.0) == 10.0 * (len(steps) - 1)
    write_log(study, "teacher", "00:01:42", "finished", 20.0)  # twice as long as expected
    assert [step.rule for step, _ in follower.look()] == ["teacher"]
    assert follower.left(120.0) == 20.0 * (len(steps) - 2)
    write_log(study, "soft_labels", "00:02:00")
    (running_step,) = [step for step in steps if step.rule == "soft_labels"]
    hidden(running_step.path, "progress.json").write_text('{"done": 5, "total": 20}')
    follower.look()
    (running,) = follower.running(130.0)
    assert (running.share, running.left) == (0.25, 30.0)
    assert follower.left(130.0) == 30.0 + 20.0 * (len(steps) - 3)


def test_steps_side_by_side_take_no_longer_than_the_longest_chain(tmp_path: Path) -> None:
    steps = list(one_seed().steps.values())
    seconds = {step.path: 10.0 for step in steps}
    alone, many = (Follower(steps, seconds, slots, 0.0).left(0.0) for slots in (1, 8))
    assert alone == 80.0
    assert many == 70.0  # data, teacher, soft labels, distillation, training, evaluation and report are a chain


def test_without_an_estimate_no_time_is_made_up(tmp_path: Path) -> None:
    assert Follower(list(one_seed().steps.values()), {}, 1, 0.0).left(0.0) is None


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (180, "3 min"), (7500, "2 h 05 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- toy length ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "shared", "quickstart", "chaos_20", "own_images", "own_volumes"])
def test_every_study_has_a_toy_length(name: str) -> None:
    full = read_yaml(WORKFLOW / f"{name}.yaml")
    short = check_study(shortened(full), name)

    def trainings(study: Study) -> list[dict[str, Any]]:
        rules = ("teacher", "ddpm", "distil", "rival", "finetune")
        commands = [step.command for step in study.steps.values() if step.rule in rules]
        return [dict(zip(command[6::2], command[7::2], strict=True)) for command in commands]

    assert {one["--max_epochs"] for one in trainings(short)} == {"1"}
    assert {one["--iterations_per_epoch"] for one in trainings(short)} == {"4"}
    assert short.output.endswith("-try")
    assert read_yaml(WORKFLOW / f"{name}.yaml") == full
