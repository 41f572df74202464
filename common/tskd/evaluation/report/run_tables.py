"""Tables of what was run: folders, stages, data, cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from tskd.evaluation.report.runs import Run
from tskd.evaluation.report.tables import Table

# settings that versions.json has and a table need not
UNTOLD = (
    *("bundle_root", "output_dir", "model_dir", "dataset_dir", "resume", "num_workers", "cache_rate", "compile"),
    *("val_interval", "accumulation_steps", "dataset", "transfer", "soft_labels", "frozen_weights", "training"),
)


def runs_table(runs: Sequence[Run]) -> Table:
    """Return one line a run folder and arm: what was evaluated."""
    rows = []
    for run in runs:
        for (arm, seed), arm_rows in run.arms.items():
            cases, patients = {row.case for row in arm_rows}, {row.group for row in arm_rows}
            rows.append([run.name, arm.dataset, arm.method, arm.budget, seed, str(len(cases)), str(len(patients))])
    return Table("Runs", ["Run", "Dataset", "Method", "Labels", "Seed", "Cases", "Patients"], rows, texts=3)


def stages_table(runs: Sequence[Run]) -> Table | None:
    """Return one line a stage: configuration, its hash, settings, device and time."""
    rows = []
    for run in runs:
        for stage, content in run.versions.items():
            rows.append(
                [
                    run.name + (f"/{stage}" if stage else ""),
                    ", ".join(map(str, content.get("config", []))) or "–",
                    _settings(content.get("settings", {})),
                    str(content.get("device", "–")),
                    str(content.get("config_sha256") or "–")[:12],
                    _time(content),
                    str(content.get("iterations", "–")),
                ]
            )
    columns = ["Stage", "Configuration", "Settings", "Device", "Config hash", "Time", "Iterations"]
    note = "Config hash: first 12 digits of the sha256 of all settings, without paths."
    return Table("Stages", columns, rows, texts=4, note=note) if rows else None


def cost_table(runs: Sequence[Run]) -> Table | None:
    """Return one line a method with profile.json: parameters, multiply-adds and time of one image."""
    budgets: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        arm = next(iter(run.arms))[0]
        if run.profile:
            parts = (("parameters", 1e6, 2), ("gmac", 1, 2), ("ms_per_image", 1, 1))
            cells = [f"{float(run.profile[k]) / by:.{d}f}" if k in run.profile else "–" for k, by, d in parts]
            budgets.setdefault((arm.method, *cells), []).append(arm.budget)
    lines = [
        [method, ", ".join(dict.fromkeys(budgets_of_method)), *cells]
        for (method, *cells), budgets_of_method in budgets.items()
    ]
    columns = ["Method", "Labels", "Parameters, million", "GMAC", "ms an image"]
    return Table("Model size and speed", columns, lines) if lines else None


def data_table(dataset: Mapping[str, Any]) -> Table:
    """Return images and patients of each list of dataset.json."""
    rows = []
    for name in ("training", "unlabelled", "validation", "test"):
        entries = dataset.get(name, [])
        rows.append([name, str(len(entries)), str(len({entry["group"] for entry in entries}))])
    return Table(f"Data: {dataset['name']}", ["List", "Images or volumes", "Patients"], rows)


def duration(seconds: float) -> str:
    """Format seconds as `1 h 12 min`, `3 min 5 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds % 60:.0f} s"


def _time(content: Mapping[str, Any]) -> str:
    if "seconds" in content:
        return duration(float(content["seconds"]))
    so_far = content.get("seconds_so_far")
    return "not finished" if so_far is None else f"not finished after {duration(float(so_far))}"


def _settings(settings: Mapping[str, Any]) -> str:
    """Format scalar settings, without the folders of file names."""
    shown_settings = []
    for key, value in settings.items():
        if key not in UNTOLD and isinstance(value, str | int | float) and value != "":
            text = value.rstrip("/").rsplit("/", 1)[-1] if isinstance(value, str) else str(value)
            shown_settings.append(f"{key} {text}")
    return ", ".join(shown_settings) or "–"
