"""The report of a study: what `tskd report` writes, with the study's name, its methods and the time of every stage.

`python -m tskd.workflow.study_report ABOUT [options of tskd report]`, where ABOUT is JSON: {"study": name, "methods":
{name: {"what": words, "teacher": bool, "stages": [[title, log of the step], ...]}}}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.evaluation import write_report
from tskd.evaluation.report.verdict import About, Method
from tskd.workflow.step_log import read_history


def read_about(content: Mapping[str, Any]) -> About:
    """Return the methods with the time that the steps' logs tell."""
    methods = {}
    for name, method in content["methods"].items():
        histories = [(title, read_history(log)) for title, log in method["stages"]]
        stages = [(title, history.seconds if history else None) for title, history in histories]
        methods[name] = Method(method["what"], stages, method.get("teacher", False))
    return About(content["study"], methods)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; return 0, or 1 after saying what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tskd.workflow.study_report")
    parser.add_argument("about", type=json.loads)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--reference")
    for option in ("--dataset-file", "--synthetic"):
        parser.add_argument(option, type=Path)
    values = parser.parse_args(arguments)
    about = read_about(values.about)
    try:
        page = write_report(
            values.runs, values.output, values.reference, values.dataset_file, values.synthetic,
            title=f"{about.study}: segmentation report", about=about,
        )  # fmt: skip
    except TskdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
