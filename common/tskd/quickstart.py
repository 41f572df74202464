"""The whole chain on a virtual cohort: a small study (workflow/quickstart.yaml) and a table of what it measured."""

from __future__ import annotations

import csv
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from tskd.errors import TskdError
from tskd.workflow import Study, check_study, read_yaml
from tskd.workflow.chain import run_study
from tskd.workflow.schema import WORKFLOW
from tskd.workflow.train import Runner, cpus

METHODS = {"teacher": "teacher", "scratch": "student without distillation", "tskd": "student with distillation"}


def quickstart(output: Path, seed: int = 0) -> None:
    """Run the study in `output`, one line a step with its time, then print the table.

    Args:
        output: folder for the study's results and logs; finished steps of an earlier call are not repeated.
        seed: seed of the cohort and of all trainings.

    Raises:
        TskdError: when Snakemake is not installed, or a step fails, with its cause, its log and how to go on.
    """
    if not WORKFLOW.is_dir():
        raise TskdError(
            f"{WORKFLOW}: expected the workflow beside the package; run the quickstart in a clone of the project"
        )
    began = time.monotonic()
    study = quickstart_study(seed, str(output / "results"))
    command = f"tskd quickstart --output {output} --seed {seed}"
    run_study(study, Runner(command, study.config["threads"]), "workflow/quickstart.yaml")
    print(table({method: Path(_folder(study, method)) for method in METHODS}))
    report = f"{study.output}/phantom/report/report.html"
    print(f"\nreport: {report}\nall steps: {(time.monotonic() - began) / 60:.1f} minutes")


def quickstart_study(seed: int, output: str = "results") -> Study:
    """The study of workflow/quickstart.yaml with this seed, on as many threads as the machine offers (at most 8)."""
    config = read_yaml(WORKFLOW / "quickstart.yaml")
    config |= {"output": output, "seeds": [seed], "threads": min(cpus(), 8)}
    config["datasets"]["phantom"]["prepare"]["options"]["seed"] = seed
    return check_study(config, "workflow/quickstart.yaml")


def _folder(study: Study, method: str) -> str:
    return str(study.model(next(study.cells("phantom")), method).folder)


def table(runs: Mapping[str, Path]) -> str:
    """Dice per organ and mean over the test patients, size and speed.

    Args:
        runs: method (those of `METHODS`) -> folder with metrics.csv and profile.json.
    """
    dice = {method: _dice(runs[method] / "metrics.csv") for method in METHODS}
    organs = list(dice["teacher"])
    patients = max(len(values) for values in dice["teacher"].values())
    lines = [f"\nDice on {patients} test patients, one training each (seed as given)"]
    lines.append(
        f"{'':30s}"
        + "".join(f"{o:>14s}" for o in organs)
        + f"{'mean':>8s}{'parameters':>13s}{'GMAC':>8s}{'ms/image':>10s}"
    )
    means = {}
    for method, name in METHODS.items():
        values = [statistics.fmean(v) for v in dice[method].values()]
        means[method] = statistics.fmean(values)
        size = json.loads((runs[method] / "profile.json").read_text())
        lines.append(
            f"{name:30s}" + "".join(f"{v:14.3f}" for v in values) + f"{means[method]:8.3f}"
            f"{size['parameters'] / 1e6:11.2f} M{size['gmac']:8.2f}{size['ms_per_image']:10.1f}"
        )
    gain = means["tskd"] - means["scratch"]
    verdict = "better" if gain > 0 else "not better"
    lines.append(f"distillation was {verdict} than training from scratch in this run: {gain:+.3f} mean Dice")
    return "\n".join(lines)


def _dice(path: Path) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] == "dice":
                values.setdefault(row["label"], []).append(float(row["value"]))
    return values
