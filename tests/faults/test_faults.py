"""A part of what `make test-faults` does."""

from pathlib import Path

import pytest

from tests import forked
from tests.faults.fuzz import fuzz

ROOT = Path(__file__).resolve().parents[2]


def run_module(*arguments: str) -> dict[str, str]:
    """Title -> what a harness says of it; in a process of its own, whose forks have one thread."""
    done = forked.run_module(arguments, cwd=ROOT, env={"PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def test_kills_of_two_trainings_and_a_generator() -> None:
    """`semi` is the default recipe: its weights and their moving average, which is its own teacher, go on exactly."""
    said = run_module("tests.faults.kill", "--kills", "15", "--stages", "student,semi,images")
    assert said.keys() == {"student", "semi", "images"}
    assert all(line.startswith("5 kills") for line in said.values())


@pytest.fixture(scope="module")
def disturbances() -> dict[str, str]:
    return run_module("tests.faults.disturb")


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("full disk", "1 of 1 disks were full; the same once there was space"),
        ("read-only folder", "error: run: expected a folder to write to, found a read-only one"),
        ("vanished image", ".png: expected the file, found none (any more)"),
        ("killed loader", "num_workers: expected the loading processes to go on, found one ended"),
        ("second run", "run: expected no other run in this folder, found process P on HOST"),
        ("second generator", "synthetic: expected no other run in this folder, found process P on HOST"),
    ],
)
def test_what_goes_wrong_is_named_and_loses_nothing(disturbances: dict[str, str], title: str, words: str) -> None:
    """The harness itself compares the checkpoint and the weights after it went on."""
    if disturbances[title].startswith("not tried"):
        pytest.skip(f"a small tmpfs cannot be mounted here ({disturbances[title]})")
    assert words in disturbances[title]


def test_mutated_inputs_end_in_a_line_of_ours(tmp_path: Path) -> None:
    assert not fuzz(tmp_path, 150, seed=0)


@pytest.mark.parametrize(
    ("seed", "number"),
    [(0, 967), (0, 1506), (1, 9), (1, 98)],
    ids=["weights: no text", "study: no such config", "study: no text", "metrics: no text"],
)
def test_inputs_that_once_ended_in_a_traceback(tmp_path: Path, seed: int, number: int) -> None:
    assert not fuzz(tmp_path, 1, seed, number)
