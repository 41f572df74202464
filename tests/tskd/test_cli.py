"""The command line: what is wrong is said in one line. What the docs write is checked in tests/docs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tskd.cli import app, main


def parse(*tokens: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the function that a command line calls."""
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    return command.__name__, dict(bound.arguments)


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'monai', 'numpy', 'skimage', 'transformers'}"
    code = f"import sys; from tskd.cli import main; assert main(['--help']) == 0; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
    for command in ("prepare", "check", "distil", "doctor", "report"):
        assert f" {command} " in done.stdout


def test_a_study_is_followed_to_its_end_without_torch():
    """The steps are processes that share one with MONAI in it; the one that shows how far they are waits for none."""
    names = ("tskd.workflow.chain", "tskd.workflow.ending", "tskd.export.shipped_record")
    code = f"import sys, {', '.join(names)}; print({{'torch', 'monai'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_dashes_and_underscores_are_one():
    dashes = parse("doctor", "--image-size", "64", "--memory-limit", "2.5", "--set", "a=1", "b=2", "--set", "c=3")
    assert dashes == parse("doctor", "--image_size", "64", "--memory_limit=2.5", "--set", "a=1", "b=2", "c=3")
    assert dashes == ("doctor", {"image_size": 64, "memory_limit": 2.5, "keys": ("a=1", "b=2", "c=3")})


def test_both_spellings_of_distil():
    options = ("--dataset-dir", "d", "--teacher", "t", "--output", "o", "--overlay", "x", "--overlay", "y", "--dry-run")
    assert parse("distil", *options) == parse("distill", *options)
    assert parse("distil", *options)[1]["overlay"] == ("x", "y")


def test_options_of_a_preparer_are_its_arguments():
    places = ("--images", "i", "--masks", "m", "--labels", "liver, spleen", "--output", "o")
    name, values = parse("prepare", "volumes", *places, "--window", "-160", "240", "--fold", "1")
    assert name == "prepare_volumes_masks"
    assert values == {
        "images": Path("i"), "masks": Path("m"), "labels": ["liver", "spleen"], "output": Path("o"),
        "window": (-160.0, 240.0), "fold": 1,
    }  # fmt: skip


PLACES = ("--images", "i", "--masks", "m", "--output", "o")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["distill"], "requires an argument"),
        (["nonesuch"], 'Unknown command "nonesuch"'),
        (["report", "a", "--outptu", "b"], "Did you mean --output?"),
        (["doctor", "--batch-size", "x"], 'unable to convert "x" into int'),
        (["score", "d", "--prediction-key", "k", "--method", "m", "--output", "o", "--section", "s"], '"test"'),
        (["prepare", "volumes", *PLACES, "--labels", "a", "--window", "0", "1", "--intensity", "body"], "exclusive"),
        (["prepare", "volumes", *PLACES, "--labels", "a,a"], "expected different names with commas between them"),
        (["prepare", "images-masks", *PLACES, "--labels", "a", "--channels", "2"], "Choose from: 1, 3"),
        (["merge", "--output", "o"], "expected --run or --adapter, found neither"),
        (["merge", "--run", "r", "--adapter", "a", "--output", "o"], "expected --run or --adapter, found both"),
        (["check"], "See `tskd check --help`"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tokens, message, capsys):
    assert main(tokens) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize("tokens", [[], ["prepare"], ["weights"]])
def test_a_command_that_is_not_complete_shows_the_help(tokens, capsys):
    assert main(tokens) == 2
    shown = capsys.readouterr().out
    assert " ".join(["Usage: tskd", *tokens, "COMMAND"]) in shown
    assert ("Start" if not tokens else "Commands") in shown
    assert main([*tokens, "-h"]) == 0


def test_the_help_shows_every_command_in_a_group(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    titles = ["Start", "Data", "Train", "Results", "Use a model", "This machine", "Options"]
    assert [line.split()[1] for line in text.splitlines() if line.startswith("╭")] == [t.split()[0] for t in titles]
