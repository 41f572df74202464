"""Numbers as the text of table cells, the same in HTML and Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .metrics import METRICS
from .numbers import Comparison, Number
from .rows import OVERALL
from .runs import Run

_DECIMALS = {
    "hd95": 1,
    "assd": 2,
    "volume_difference": 1,
    "area_difference": 0,
    "ece": 4,
    "ece_foreground": 4,
    "brier": 4,
}
_MAIN = ("dice", "hd95")


@dataclass(frozen=True)
class Table:
    """A table of finished text; the first `texts` columns are left-aligned, the others hold numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    note: str = ""


def shown(value: float, metric: str) -> str:
    """A value with the decimals of its metric."""
    text = f"{value:.{_DECIMALS.get(metric, 3)}f}"
    return text.lstrip("-") if not float(text) else text


def with_interval(value: float, low: float | None, high: float | None, metric: str) -> str:
    """`0.873 [0.851, 0.890]`, or the value alone where there is no interval."""
    if low is None or high is None:
        return shown(value, metric)
    return f"{shown(value, metric)} [{shown(low, metric)}, {shown(high, metric)}]"


def heading(metric: str, unit: str) -> str:
    """Title of a metric with its unit; `unit` is that of distances, "mm" or "pixels"."""
    title, own, _ = METRICS.get(metric, (metric, "", 1))
    own = {"mm": unit, "mm²": {"mm": "mm²"}.get(unit, unit)}.get(own, own)
    return f"{title}, {own}" if own else title


def methods_table(numbers: Sequence[Number], unit: str) -> Table:
    """One line an arm: mean, median and worst Dice over all organs, and HD95. Numbers of one dataset."""
    rows = []
    for dice in _pick(numbers, OVERALL, "dice"):
        hd95 = [n for n in _pick(numbers, OVERALL, "hd95") if _arm(n) == _arm(dice)]
        rows.append(
            [
                dice.method,
                dice.budget,
                str(dice.seeds),
                str(dice.patients),
                with_interval(dice.mean, dice.low, dice.high, "dice"),
                shown(dice.median, "dice"),
                f"{shown(dice.worst, 'dice')} (patient {dice.worst_patient})",
                with_interval(hd95[0].mean, hd95[0].low, hd95[0].high, "hd95") if hd95 else "–",
            ]
        )
    columns = ["Method", "Labels", "Seeds", "Patients", "Mean Dice [95%]", "Median Dice", "Worst Dice"]
    return Table(
        "Methods, mean over all organs",
        [*columns, f"Mean {heading('hd95', unit)} [95%]"],
        rows,
        note="Labels: labelled training images. [95%]: bootstrap interval over patients, and over seeds where there "
        "are several; with one seed it leaves out the chance of training. Median and worst are over patients.",
    )


def organ_table(numbers: Sequence[Number], metric: str, unit: str) -> Table:
    """One line an arm, one column an organ: mean of a metric with its interval. Numbers of one dataset."""
    labels = list(dict.fromkeys(n.label for n in numbers if n.metric == metric and n.label != OVERALL))
    cells = {(*_arm(n), n.label): with_interval(n.mean, n.low, n.high, metric) for n in numbers if n.metric == metric}
    arms = list(dict.fromkeys(_arm(n) for n in numbers))
    rows = [[method, budget, *(cells.get((method, budget, label), "–") for label in labels)] for method, budget in arms]
    title, _, units = heading(metric, unit).partition(", ")
    return Table(
        ", ".join(filter(None, [f"{title} by organ", units, "mean [95%]"])), ["Method", "Labels", *labels], rows
    )


def other_metrics_table(numbers: Sequence[Number], unit: str) -> Table:
    """One line an arm, one column a metric beside Dice and HD95: mean over all organs. Numbers of one dataset."""
    metrics = [m for m in METRICS if m not in _MAIN and any(n.metric == m for n in numbers)]
    cells = {(*_arm(n), n.metric): shown(n.mean, n.metric) for n in numbers if n.label == OVERALL}
    arms = list(dict.fromkeys(_arm(n) for n in numbers))
    rows = [
        [method, budget, *(cells.get((method, budget, metric), "–") for metric in metrics)] for method, budget in arms
    ]
    columns = ["Method", "Labels", *(heading(metric, unit) for metric in metrics)]
    return Table("Other metrics, mean over all organs", columns, rows)


def comparison_table(comparisons: Sequence[Comparison], unit: str) -> Table:
    """One line an arm and metric: difference from the reference, effect size, p before and after Holm's correction."""
    rows = []
    for item in comparisons:
        test, gap = item.test, item.test.difference
        better = METRICS[item.metric][2] * gap.mean > 0
        rows.append(
            [
                item.arm.method,
                item.arm.budget,
                heading(item.metric, unit),
                str(test.n),
                with_interval(gap.mean, gap.low, gap.high, item.metric),
                "equal" if not gap.mean else "better" if better else "worse",
                f"{test.effect:+.2f}",
                p_text(test.p),
                p_text(item.p_holm),
            ]
        )
    columns = ["Method", "Labels", "Metric", "Patients", "Difference [95%]", "Which is", "Effect", "p", "p (Holm)"]
    return Table(
        f"Difference from {comparisons[0].reference}",
        columns,
        rows,
        note="Wilcoxon signed-rank test over patients, two-sided; values averaged over seeds. Effect: matched-pairs "
        "rank-biserial correlation, from -1 to +1. Holm's correction over the comparisons of one metric.",
    )


def runs_table(runs: Sequence[Run]) -> Table:
    """One line a run folder and arm: what was evaluated."""
    rows = []
    for run in runs:
        for (arm, seed), own in run.arms.items():
            cases, patients = {row.case for row in own}, {row.group for row in own}
            rows.append([run.path.name, arm.dataset, arm.method, arm.budget, seed, str(len(cases)), str(len(patients))])
    return Table("Runs", ["Run", "Dataset", "Method", "Labels", "Seed", "Cases", "Patients"], rows, texts=3)


def stages_table(runs: Sequence[Run]) -> Table | None:
    """One line a training stage: configuration, device and time."""
    rows = []
    for run in runs:
        for stage, content in run.versions.items():
            seconds = content.get("seconds")
            rows.append(
                [
                    run.path.name + (f"/{stage}" if stage else ""),
                    ", ".join(map(str, content.get("config", []))) or "–",
                    _settings(content.get("settings", {})),
                    str(content.get("device", "–")),
                    duration(float(seconds)) if seconds is not None else "not finished",
                    str(content.get("iterations", "–")),
                ]
            )
    columns = ["Stage", "Configuration", "Settings", "Device", "Time", "Iterations"]
    return Table("Training", columns, rows, texts=4) if rows else None


def cost_table(runs: Sequence[Run]) -> Table | None:
    """One line a method with profile.json: parameters, multiply-adds and time of one image."""
    budgets: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        arm = next(iter(run.arms))[0]
        if run.profile:
            parts = (("parameters", 1e6, 2), ("gmac", 1, 2), ("ms_per_image", 1, 1))
            cells = [f"{float(run.profile[k]) / by:.{d}f}" if k in run.profile else "–" for k, by, d in parts]
            budgets.setdefault((arm.method, *cells), []).append(arm.budget)
    lines = [[method, ", ".join(dict.fromkeys(own)), *cells] for (method, *cells), own in budgets.items()]
    columns = ["Method", "Labels", "Parameters, million", "GMAC", "ms an image"]
    return Table("Model size and speed", columns, lines) if lines else None


def data_table(dataset: Mapping[str, Any]) -> Table:
    """Images and patients of each list of dataset.json."""
    rows = []
    for name in ("training", "unlabelled", "validation", "test"):
        entries = dataset.get(name, [])
        rows.append([name, str(len(entries)), str(len({entry["group"] for entry in entries}))])
    return Table(f"Data: {dataset['name']}", ["List", "Images or volumes", "Patients"], rows)


def p_text(p: float) -> str:
    """A p value with four decimals."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def duration(seconds: float) -> str:
    """`1 h 12 min`, `3 min 5 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds % 60:.0f} s"


def _arm(number: Number) -> tuple[str, str]:
    return number.method, number.budget


def _pick(numbers: Sequence[Number], label: str, metric: str) -> list[Number]:
    return [number for number in numbers if number.label == label and number.metric == metric]


def _settings(settings: Mapping[str, Any]) -> str:
    """Scalar settings, without the folders of file names."""
    shown_settings = []
    for key, value in settings.items():
        if isinstance(value, str | int | float) and value != "":
            text = value.rstrip("/").rsplit("/", 1)[-1] if isinstance(value, str) else str(value)
            shown_settings.append(f"{key} {text}")
    return ", ".join(shown_settings) or "–"
