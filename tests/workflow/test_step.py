"""A step: what it runs again, what it continues, what it clears, what it shows of a failure."""

import os
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tskd.errors import TskdError
from tskd.visible_gpus import visible
from tskd.workflow import warm
from tskd.workflow.gpus import reserve
from tskd.workflow.step import Task, explain, main, run
from tskd.workflow.step_log import command_text, read_history
from tskd.workflow.steps import read_progress

# writes a file, and fails while `fail` is there
SCRIPT = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); (p / 'made').write_text('x'); "
SCRIPT += "sys.exit('no luck' if (p.parent / 'fail').exists() else 0)"


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "toyscript.py").write_text(SCRIPT)
    (tmp_path / "input").write_text("a")
    return Task(
        name="toy", command=("toyscript", str(tmp_path / "out")), path=str(tmp_path / "out"),
        output=tmp_path / "out/made",
        folder=tmp_path / "out",
        inputs=(tmp_path / "input",),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_a_finished_step_has_what_it_makes_and_its_log_says_how_long_it_took(task: Task) -> None:
    run(task)
    assert task.output.is_file()
    history = read_history(task.log)
    assert history is not None
    assert (history.state, history.cause) == ("finished", "")
    assert history.command == command_text(task.command)
    assert 0 < history.seconds < 60


def test_a_step_that_does_not_write_what_it_should_is_an_error(task: Task, tmp_path: Path) -> None:
    (tmp_path / "toyscript.py").write_text("")
    with pytest.raises(TskdError, match=r"toy: expected it to write .*made, found no such file"):
        run(task)


@pytest.mark.parametrize("change", ["command", "input"])
def test_a_changed_step_starts_in_an_empty_folder(task: Task, tmp_path: Path, change: str) -> None:
    run(task)
    assert task.folder
    (task.folder / "old").touch()
    if change == "input":
        later = time.time() + 1
        os.utime(tmp_path / "input", (later, later))
    else:
        task = replace(task, command=(*task.command, "--more"))
    run(task)
    assert not (task.folder / "old").exists()
    assert task.log.read_text().count("began: ") == 1


def test_a_step_that_failed_shows_its_log_and_continues_in_its_folder(task: Task, tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    with pytest.raises(TskdError, match=r"toy: no luck\n  log: .*out\.log"):
        run(task)
    first = read_history(task.log)
    assert first is not None
    assert (first.state, first.cause) == ("failed", "no luck")
    assert task.folder
    (task.folder / "checkpoint").touch()
    task.output.unlink()  # as Snakemake does
    (tmp_path / "fail").unlink()
    run(task)
    assert (task.folder / "checkpoint").exists()
    second = read_history(task.log)
    assert second is not None
    assert (second.state, second.first) == ("finished", first.first)
    assert second.seconds > first.seconds  # both parts


def test_a_killed_step_says_so(task: Task, tmp_path: Path) -> None:
    (tmp_path / "toyscript.py").write_text("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(TskdError, match=r"ended by SIGKILL, as the system does when memory"):
        run(task)


def test_how_far_a_step_is_can_be_followed_and_its_bar_does_not_fill_the_log(task: Task, tmp_path: Path) -> None:
    script = "from tskd.progress_file import FollowedBar; import pathlib, sys; b = FollowedBar(total=3); "
    script += "[b.update(1) for _ in range(3)]; here = pathlib.Path(sys.argv[1]).parent; "
    (tmp_path / "toyscript.py").write_text(
        script + "print((here / '.out.progress.json').read_text()); (here / 'out').mkdir(); (here / 'out/made').touch()"
    )
    run(task)
    assert '{"done": 3, "total": 3, ' in task.log.read_text()
    assert "%" not in task.log.read_text()
    assert read_progress(task.path) == {}


def test_a_folder_that_was_deleted_is_made_anew(task: Task) -> None:
    run(task)
    assert task.folder
    shutil.rmtree(task.folder)
    run(task)
    assert task.output.is_file()


def test_what_a_step_makes_is_newer_than_what_it_is_made_from(task: Task, tmp_path: Path) -> None:
    """Also where the command finds its work done, and leaves the file as it is: or Snakemake would run it for ever."""
    run(task)
    os.utime(task.output, (1, 1))
    (tmp_path / "toyscript.py").write_text("")
    run(task)
    assert task.output.stat().st_mtime >= (tmp_path / "input").stat().st_mtime


def test_folders_that_snakemake_made_are_no_other_files(task: Task) -> None:
    assert task.folder
    (task.folder / "models").mkdir(parents=True)
    run(task)
    assert task.output.is_file()


@pytest.mark.parametrize(
    ("status", "log", "cause"),
    [
        (1, "Traceback\n  File x\nerror: images: expected PNG,\n  found none\n", "images: expected PNG,\n  found none"),
        (1, "Traceback (most recent call last):\n  File x\nValueError: no number\n", "ValueError: no number"),
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried 3 GiB\n", "Lower batch_size"),
        (-9, "", "Lower batch_size"),
        (
            1,
            "Traceback (most recent call last):\n  File x\nKeyError: 'vfm'\n\nThe above exception was the direct cause "
            "of the following exception:\n\nTraceback (most recent call last):\n  File y\nRuntimeError: Failed\n",
            "KeyError: 'vfm'",
        ),
        (3, "", "it ended with status 3"),
    ],
)
def test_the_cause_of_a_failure_is_found_in_the_log(status: int, log: str, cause: str) -> None:
    assert cause in explain(status, log)


def test_a_folder_that_no_step_made_is_not_cleared(task: Task) -> None:
    task.folder.mkdir()
    (task.folder / "thesis.txt").touch()
    with pytest.raises(TskdError, match="other files"):
        run(task)
    assert (task.folder / "thesis.txt").exists()


def test_the_command_line(task: Task, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--name", "toy", "--path", task.path, "--output", task.output, "--folder", task.folder]
    arguments = [str(part) for part in [*options, "--inputs", *task.inputs, "--", *task.command]]
    assert main(arguments) == 0
    assert re.search(r"^toy: \d+ s$", capfd.readouterr().out, re.MULTILINE)
    assert re.match(r"\[tskd\] \S+ began: toyscript ", task.log.read_text())


def test_mig_slices_are_not_counted_as_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["GPU 0: NVIDIA H100 (UUID: GPU-1)", "  MIG 3g.40gb     Device  0: (UUID: MIG-2)", "GPU 1: NVIDIA H100"]
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible() == ["0", "1"]


@pytest.mark.parametrize(("named", "gpus"), [("-1", []), ("", []), ("1,-1,0", ["1"]), ("0, 3", ["0", "3"])])
def test_a_number_below_zero_hides_the_cards_behind_it(
    named: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible() == gpus


def test_a_step_takes_a_gpu_only_if_it_is_told_to(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("a GPU was asked for")

    monkeypatch.setattr("tskd.workflow.step.reserve", refuse)
    run(task)
    with pytest.raises(RuntimeError, match="a GPU was asked for"):
        run(replace(task, gpu=True, command=(*task.command, "again")))


def test_steps_side_by_side_get_a_gpu_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible() == ["2", "5"]
    with reserve() as first:
        with reserve() as second:
            assert [first, second] == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]
        with reserve() as third:
            assert third == second
    with reserve(["7"]) as only:  # a cluster's job has its own already
        assert only == {}


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="no fork: nothing is warm here")
def test_a_warm_step_has_the_threads_of_its_rule(tmp_path, monkeypatch):
    """Snakemake exports a rule's threads: two steps on two cores take one each, though torch was imported before."""
    (tmp_path / "probe.py").write_text("import torch\nprint(torch.get_num_threads())\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(warm.VARIABLE, raising=False)
    with warm.server(tmp_path, tmp_path / "server.log", ["torch"]) as environment:
        for threads in ("1", "2"):
            with (tmp_path / "out").open("w") as output:
                asked = {**os.environ, **environment, "OMP_NUM_THREADS": threads}
                assert warm.start(["probe"], output, asked).wait() == 0
            assert (tmp_path / "out").read_text().split() == [threads]
