"""`tskd train`: what happens before, during and after the steps of a study."""

from __future__ import annotations

import copy
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.workflow import warm
from tskd.workflow.ending import ending
from tskd.workflow.preflight import preflight
from tskd.workflow.schema import read_yaml
from tskd.workflow.study import Study
from tskd.workflow.study_checks import check_study
from tskd.workflow.train import Runner, only_run, run

# of every training at toy length; keys that a bundle does not have are left out
TOY: dict[str, Any] = {
    "max_epochs": 1, "iterations_per_epoch": 4, "warmup_steps": 1, "val_interval": 1, "batch_size": 2,
    "batch_norm_batches": 2, "preview_interval": 1,
}  # fmt: skip
TOY_IMAGES = 4  # synthetic images of a study at toy length
TOY_CASES = 8  # entries of each list


def train(
    file: Path,
    cores: int | None = None,
    snakemake: Sequence[str] = (),
    try_it: bool = False,
    dry_run: bool = False,
) -> None:
    """Run a study from its YAML file, after a look at everything that it names.

    Args:
        file: the study (workflow/study.schema.json), for example from `tskd init`.
        cores: CPU cores to use, all of this machine by default.
        snakemake: more arguments for Snakemake, such as a profile for a cluster.
        try_it: the whole study at toy length, in a folder of its own, to see that it goes through.
        dry_run: only look: prepare and check the data, build the networks, time a few of their steps.

    Raises:
        TskdError: every problem of the file or its data at once; a step that failed, with its cause and how to go on.
    """
    config = read_yaml(file)
    study = check_study(shortened(config) if try_it else config, str(file))
    options = [*(["--try"] if try_it else []), *(["--cores", str(cores)] if cores else [])]
    options += [f"--snakemake={shlex.quote(part)}" for part in snakemake]
    run_study(study, Runner(" ".join(["tskd train", str(file), *options]), cores, snakemake), str(file), dry_run)


def run_study(study: Study, runner: Runner, where: str, dry_run: bool = False) -> None:
    """Look at a study, then run it; `where` names it in errors. See `train`."""
    output = Path(study.output)
    with only_run(output), tempfile.TemporaryDirectory(prefix="tskd-") as folder:
        log = output / "train.log"
        with warm.server(Path(folder), log) as environment:
            checked = preflight(study, environment, cores=runner.cores)
            print("\n".join(checked.lines), flush=True)
            checked.refuse(where)
            if dry_run:
                print(f"{len(study.steps)} steps, {len(checked.steps)} to run; nothing was run but the data")
                return
            run(study, runner, checked.steps, checked.estimates, environment)
            for line in ending(study, environment):
                print(line, flush=True)


def shortened(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study with trainings of a few steps, on a few images, in an output folder of its own."""
    short = copy.deepcopy(dict(config))
    output = str(short.get("output", f"results/{short['name']}")).rstrip("/")
    short |= {"output": f"{output}-try", "limit": TOY_CASES}
    if "synthesis" in short:
        short["synthesis"]["num_images"] = TOY_IMAGES
    teachers = list(short.get("teachers", {}).values())
    stages = [*teachers, *(teacher.get("train") for teacher in teachers)]
    pretrainings = list(short.get("pretraining", {}).values())
    stages += [*pretrainings, *(each["start"] for each in pretrainings if isinstance(each.get("start"), dict))]
    stages += [short.get("synthesis", {}).get("train")]
    stages += [method.get("finetune") for method in short["methods"].values()]
    holders = [*(scope.get("overrides", {}) for scope in (short, *short["datasets"].values()))]
    stages += [{"overrides": section} for holder in holders for section in holder.values()]
    for overrides in (stage["overrides"] for stage in stages if stage and stage.get("overrides")):
        ratio = overrides.get("batch_ratio")
        toy = {**TOY, "batch_size": sum(ratio.values())} if ratio else TOY
        overrides |= {key: value for key, value in toy.items() if key in overrides or (key == "batch_size" and ratio)}
    for settings in short.get("pretraining", {}).values():
        if isinstance(settings.get("transfer", {}).get("synthetic"), int):
            settings["transfer"]["synthetic"] = "all"
    shared = short.setdefault("overrides", {})
    shared["all"] = {**shared.get("all", {}), **TOY}
    if "synthesis" not in short:
        del shared["all"]["preview_interval"]
    for dataset in short["datasets"].values():
        images = [min(b, TOY_CASES) if isinstance(b, int) else b for b in dataset.get("budgets", [])][:1]
        dataset |= {"budgets": images} if images else {"num_labelled_groups": dataset["num_labelled_groups"][:1]}
        if images:
            dataset.pop("num_labelled_groups", None)
    short["seeds"] = short["seeds"][:1]
    if "folds" in short:
        short["folds"]["run"] = short["folds"].get("run", [0])[:1]
    return short
