"""The README's commands are those that continuous integration runs; its numbers are as new as what they measure."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.readme_commands import commands, listed

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEASURED = re.compile(r"<!-- measured: ([0-9a-f]{7,40}) paths: ([^>]+?) -->")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def test_commands_are_joined_and_freed_of_comments() -> None:
    page = "text\n```bash\nmake a   # why\n# alone\ntskd b \\\n    --c d\n```\n\n```yaml\nkey: 1\n```\n"
    assert commands(page) == ["make a", "tskd b --c d"]


def test_ci_runs_each_command_of_the_readme_and_no_other() -> None:
    assert [entry["readme"] for entry in listed()] == commands(README)


def test_ci_runs_the_same_command_of_the_program() -> None:
    for entry in listed():
        assert entry.get("ci", entry["readme"]).split()[:2] == entry["readme"].split()[:2]
    assert "tests/readme_commands.py" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_the_quickstarts_numbers_say_where_they_were_measured() -> None:
    (paragraph,) = [part for part in README.split("\n\n") if part.startswith("The quickstart ")]
    assert MEASURED.search(paragraph)


@pytest.mark.parametrize(("commit", "paths"), MEASURED.findall(README))
def test_a_number_is_not_older_than_what_it_measures(commit: str, paths: str) -> None:
    assert not [path for path in paths.split() if not (ROOT / path).exists()]
    if not git("rev-parse", "HEAD"):
        pytest.skip("no git history: this is not a clone")
    if (
        not git("rev-parse", "--verify", f"{commit}^{{commit}}")
        and git("rev-parse", "--is-shallow-repository") == "true"
    ):
        pytest.skip(f"the history of this shallow clone does not reach back to {commit}")
    assert git("rev-parse", "--verify", f"{commit}^{{commit}}"), f"{commit}: no such commit"
    newer = git("log", "--oneline", f"{commit}..HEAD", "--", *paths.split())
    assert not newer, f"measured at {commit}, changed since: measure again, and write the new commit\n{newer}"
