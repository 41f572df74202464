"""The whole chain on a virtual cohort: a small study (workflow/quickstart.yaml) run by `tskd train`."""

from __future__ import annotations

import time
from pathlib import Path

from tskd.cpus import cpus
from tskd.errors import TskdError
from tskd.workflow import Study, check_study, read_yaml
from tskd.workflow.chain import run_study
from tskd.workflow.schema import WORKFLOW
from tskd.workflow.train import Runner


def quickstart(output: Path, seed: int = 0) -> None:
    """Run the study in `output`, one line a step with its time, then print what came of it.

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
    run_study(study, Runner(command, min(cpus(), 8)), "workflow/quickstart.yaml")
    print(f"all steps: {(time.monotonic() - began) / 60:.1f} minutes")


def quickstart_study(seed: int, output: str = "results") -> Study:
    """Return the study of workflow/quickstart.yaml with this seed; two steps share the machine's cores (at most 8).

    Its networks and images are small: two threads of one training wait for each other, two trainings do not.
    """
    config = read_yaml(WORKFLOW / "quickstart.yaml")
    config |= {"output": output, "seeds": [seed], "threads": max(min(cpus(), 8) // 2, 1)}
    config["datasets"]["phantom"]["prepare"]["options"]["seed"] = seed
    return check_study(config, "workflow/quickstart.yaml")
