"""Hyper-parameter search with Optuna: each trial is a bundle run in its own folder, judged on the validation list."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tskd import data
from tskd.errors import TskdError
from tskd.files import atomic
from tskd.options import unknown_key
from tskd.workflow import warm
from tskd.workflow.commands import BUNDLES, bundle_command, config_files, merged_config
from tskd.workflow.schema import read_yaml, refuse, schema_problems
from tskd.workflow.study_checks import unknown_names
from tskd.workflow.sublist import write_sublist

try:
    import optuna
    from optuna.trial import Trial, TrialState
except ImportError as error:
    raise TskdError(
        "expected Optuna, found none. Install it: pip install -c constraints.txt -e '.[workflow]'"
    ) from error

OWN = ("dataset_dir", "dataset_file", "output_dir", "model_dir", "section", "resume")
COLUMNS = ("trial", "state", "value")


def search(file: Path, output: Path) -> Path:
    """Run the trials of a search file that are still missing, and return the path of trials.csv.

    A trial sees a dataset.json without the test list. Its value is the best one of the metric in its train_log.csv. The
    sampler of a trial depends on the seed and the trials before it only, so a search that was stopped and is continued
    proposes what an uninterrupted one would; a trial that was killed continues from its last epoch.

    Args:
        file: YAML, see workflow/search.schema.json.
        output: folder for trials.csv, the study's SQLite file and the trials' folders.

    Raises:
        TskdError: listing all problems of the file; when `output` holds another search; when the first trial fails.
    """
    settings = check_search(read_yaml(file), str(file))
    output = output.resolve()
    dataset = _without_test(Path(settings["dataset"]), output / "dataset" / "dataset.json")
    pruners = optuna.pruners
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{output / 'search.db'}", study_name="search", direction="maximize", load_if_exists=True,
        pruner=pruners.MedianPruner(**settings["pruner"]) if "pruner" in settings else pruners.NopPruner(),
    )  # fmt: skip
    _claim(study, settings)
    for _ in range(settings["trials"] - sum(trial.state.is_finished() for trial in study.trials)):
        trial = _next(study, settings["seed"])
        _run(study, trial, settings, dataset, output / f"trial-{trial.number:03d}")
        write_trials(study, list(settings["space"]), output / "trials.csv")
    best = study.best_trial
    print(f"best: trial {best.number}, {settings['metric']} {best.value:.4f} with " + _flags(best.params))
    return output / "trials.csv"


def check_search(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the settings of a search file with its defaults.

    Raises:
        TskdError: every problem of the file in one message.
    """
    refuse(schema_problems(settings, "search.schema.json"), where)
    settings = {"configs": ["train"], "overrides": {}, "seed": 0, "metric": "val_mean_dice", **settings}
    bundle, configs = settings["bundle"], tuple(settings["configs"])
    paths = {name: Path(path) for name, path in zip(configs, config_files(bundle, configs), strict=True)}
    known = [path.stem for path in sorted((BUNDLES / bundle / "configs").glob("*.json"))]
    problems = list(unknown_names("configs", [name for name, path in paths.items() if not path.is_file()], known))
    merged = {} if problems else merged_config(bundle, configs)
    if "evaluate" in configs:
        problems.append("configs: expected a training, found evaluate, which scores the test list. Leave it out")
    if merged and merged.get("validator", "") is None:
        problems.append(
            f"configs: expected a training that validates, found {', '.join(configs)}, which has nothing that a "
            "validation could measure. Search by what its fine-tuning reaches (docs/explanation/rivals.md)"
        )
    for section in ("overrides", "space"):
        for key in settings[section]:
            if key in OWN or key.startswith("validate#dataset"):
                problems.append(
                    f"{section}: {key} is set by the search, which uses the validation list only; leave it out"
                )
            elif merged and (problem := unknown_key(key, merged)):
                problems.append(f"{section}: {key}: {problem}")
    for key in settings["space"].keys() & settings["overrides"].keys():
        problems.append(f"space: {key} is also in overrides, expected it in one of them")
    for key, axis in settings["space"].items():
        if axis["type"] != "categorical" and not axis["low"] <= axis["high"]:
            problems.append(f"space/{key}: expected low <= high, found {axis['low']} and {axis['high']}")
    refuse(problems, where)
    return settings


def write_trials(study: optuna.Study, names: list[str], path: Path) -> None:
    """Write one line a trial: number, state, value (empty if there is none) and the parameters."""
    with atomic(path) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *names])
        for trial in study.trials:
            value = "" if trial.value is None else f"{trial.value:.6g}"
            writer.writerow([trial.number, trial.state.name.lower(), value, *(trial.params.get(n, "") for n in names)])


def _without_test(source: Path, target: Path) -> Path:
    content = data.read(source)
    write_sublist(source.resolve(), target, {name: content[name] for name in ("training", "unlabelled", "validation")})
    return target


def _claim(study: optuna.Study, settings: Mapping[str, Any]) -> None:
    """Remembers what decides the trials' values; their number may grow."""
    identity = {key: value for key, value in settings.items() if key != "trials"}
    stored = study.user_attrs.get("settings", identity)
    differing = [
        f"{key}: expected {stored.get(key)}, found {identity.get(key)}"
        for key in sorted({*stored, *identity})
        if stored.get(key) != identity.get(key)
    ]
    if differing:
        raise TskdError(f"the folder holds another search; {'; '.join(differing)}. Choose another --output")
    study.set_user_attr("settings", identity)


def _next(study: optuna.Study, seed: int) -> Trial:
    """Return the trial that was being run when the search was stopped, or a new one."""
    study.sampler = optuna.samplers.TPESampler(seed=seed * 100_003 + len(study.trials))
    running = [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    return Trial(study, running[0]._trial_id) if running else study.ask()


def suggest(trial: Trial, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return values of a trial for every key of the space."""
    values: dict[str, Any] = {}
    for key, axis in space.items():
        if axis["type"] == "categorical":
            values[key] = trial.suggest_categorical(key, axis["choices"])
        elif axis["type"] == "int":
            values[key] = trial.suggest_int(key, axis["low"], axis["high"], log=axis.get("log", False))
        else:
            values[key] = trial.suggest_float(key, axis["low"], axis["high"], log=axis.get("log", False))
    return values


def _run(study: optuna.Study, trial: Trial, settings: Mapping[str, Any], dataset: Path, folder: Path) -> None:
    values = suggest(trial, settings["space"])
    paths = {"dataset_dir": dataset.parent, "output_dir": folder, "model_dir": folder / "models"}
    command = bundle_command(settings["bundle"], settings["configs"], {**paths, **settings["overrides"], **values})
    folder.mkdir(parents=True, exist_ok=True)
    log, began = folder / "trial.log", time.monotonic()
    with log.open("a") as file:
        process = warm.start(command, file, {**os.environ, "PYTHONWARNINGS": "ignore"})
        try:
            pruned = _watch(process, trial, folder / "train_log.csv", settings["metric"])
        finally:
            process.terminate()
            status = process.wait()
    scores = read_scores(folder / "train_log.csv", settings["metric"])
    failed = not pruned and (status != 0 or not scores)
    state = TrialState.PRUNED if pruned else TrialState.FAIL if failed else TrialState.COMPLETE
    if failed and not any(earlier.state == TrialState.COMPLETE for earlier in study.trials):
        end = "".join(log.read_text().splitlines(True)[-15:])
        raise TskdError(f"trial {trial.number} failed, and none has succeeded; the end of {log}:\n{end}")
    study.tell(trial, None if failed or pruned else max(scores.values()), state)
    result = f"{max(scores.values()):.4f}" if scores and not failed else "no value"
    print(f"trial {trial.number}: {state.name.lower()}, {result}, {time.monotonic() - began:.0f} s;", _flags(values))


def _watch(process: warm.Process, trial: Trial, log: Path, metric: str) -> bool:
    """Wait for the run's end; return whether the pruner has ended it early."""
    reported: set[int] = set()
    while process.poll() is None:
        time.sleep(0.5)
        for epoch, value in read_scores(log, metric).items():
            if epoch not in reported:
                reported.add(epoch)
                trial.report(value, epoch)
        if trial.should_prune():
            return True
    return False


def read_scores(log: Path, metric: str) -> dict[int, float]:
    """Return epoch -> the metric on the validation list, from a run's train_log.csv; empty where there is none yet."""
    if not log.is_file():
        return {}
    with log.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == f"validation_{metric}" and row["value"]]
    return {int(row["epoch"]): float(row["value"]) for row in rows}


def _flags(values: Mapping[str, Any]) -> str:
    return " ".join(
        f"--{key} {value:.4g}" if isinstance(value, float) else f"--{key} {value}" for key, value in values.items()
    )
