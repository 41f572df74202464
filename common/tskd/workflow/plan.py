"""What Snakemake says has to run, and the data sets, which it makes before anything else."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tskd.errors import TskdError
from tskd.files import write_text
from tskd.workflow import warm
from tskd.workflow.schema import WORKFLOW
from tskd.workflow.steps import Step
from tskd.workflow.study import Study

PENDING = "update pending"


def snakemake(study: Study) -> list[str]:
    """Return arguments of `python -m` for a study: the rules, the file, and what makes a step run again.

    Raises:
        TskdError: when Snakemake is not installed.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise TskdError("expected Snakemake, found none. Install it: pip install -c constraints.txt -e '.[workflow]'")
    file = Path(study.output, "study.yaml")
    text = yaml.safe_dump(dict(study.config), sort_keys=False)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)
    return [
        "snakemake", "--snakefile", str(WORKFLOW / "Snakefile"), "--configfile", str(file), "--nolock",
        "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "input",
    ]  # fmt: skip


def steps_to_run(study: Study, environment: Mapping[str, str] | None = None) -> list[Step]:
    """Return steps that Snakemake would run: their output is not there, is older than its input, or is made anew.

    Args:
        study: the study.
        environment: that finds the process which has imported all (`warm.server`).

    Raises:
        TskdError: when Snakemake cannot read the study.
    """
    text = _call(study, ["--cores", "1", "--summary"], environment)
    rows = [line.split("\t") for line in text.partition("output_file\t")[2].splitlines()[1:]]
    pending = {row[0] for row in rows if row[-1] == PENDING}
    return [step for output, step in study.steps.items() if output in pending]


def prepare_data(study: Study, steps: Sequence[Step], cores: int, environment: Mapping[str, str] | None = None) -> None:
    """Make the data sets of `steps`, as far as they can be made; a log says why one could not."""
    if steps:
        targets = [step.output for step in steps]
        _call(study, ["--cores", str(cores), "--keep-going", "--quiet", "all", "--", *targets], environment, False)


def _call(study: Study, arguments: Sequence[str], environment: Mapping[str, str] | None, refuse: bool = True) -> str:
    """Return what Snakemake prints, which the study's log gets, too."""
    command, log = [*snakemake(study), *arguments], Path(study.output, "train.log")
    variables = {**os.environ, "PYTHONWARNINGS": "ignore", **(environment or {})}
    with log.open("a+", encoding="utf-8", errors="replace") as file:
        print(shlex.join([sys.executable, "-m", *command]), file=file, flush=True)
        begin = file.seek(0, os.SEEK_END)
        status = warm.start(command, file, variables).wait()
        file.seek(begin)
        text = file.read()
    if status != 0 and refuse:
        ours = [line.removeprefix("error: ") for line in text.splitlines() if line.startswith("error: ")]
        raise TskdError(f"{ours[-1] if ours else 'Snakemake stopped'}\n  log: {log}")
    return text
