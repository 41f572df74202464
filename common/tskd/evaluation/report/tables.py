"""Format numbers as table cells, the same in HTML and Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tskd.evaluation.calibration import REGIONS, calibration_error, error_detection_auroc
from tskd.evaluation.metrics import METRICS
from tskd.evaluation.reliability import Pooled
from tskd.evaluation.report.summary import Comparison, Number
from tskd.evaluation.rows import OVERALL
from tskd.evaluation.statistics import ALPHA

_DECIMALS = {
    "hd95": 1,
    "assd": 2,
    "volume_difference": 1,
    "area_difference": 0,
    "ece": 4,
    "ece_foreground": 4,
    "brier": 4,
}


@dataclass(frozen=True)
class Table:
    """A table of finished text; the first `texts` columns are left-aligned, the others hold numbers.

    A `folded` one is long, and is opened by the reader.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    note: str = ""
    folded: bool = False


def format_metric(value: float, metric: str) -> str:
    """Format a value with the decimals of its metric."""
    text = f"{value:.{_DECIMALS.get(metric, 3)}f}"
    return text.lstrip("-") if not float(text) else text


def with_interval(value: float, low: float | None, high: float | None, metric: str) -> str:
    """Format `0.873 [0.851, 0.890]`, or the value alone where there is no interval."""
    if low is None or high is None:
        return format_metric(value, metric)
    return f"{format_metric(value, metric)} [{format_metric(low, metric)}, {format_metric(high, metric)}]"


def cells(frame: pd.DataFrame, metric: str) -> list[list[str]]:
    """Format a table of a metric: the parts of each row's name, then its values, a dash where there is none."""
    texts = frame.map(lambda value: "–" if pd.isna(value) else format_metric(value, metric))
    names = (name if isinstance(name, tuple) else (name,) for name in frame.index)
    return [[*name, *row] for name, row in zip(names, texts.to_numpy(), strict=True)]


def metric_heading(metric: str, unit: str) -> str:
    """Return the title of a metric with its unit; `unit` is that of distances, "mm" or "pixels"."""
    title, metric_unit, _ = METRICS.get(metric, (metric, "", 1))
    metric_unit = {"mm": unit, "mm²": {"mm": "mm²"}.get(unit, unit)}.get(metric_unit, metric_unit)
    return f"{title}, {metric_unit}" if metric_unit else title


def methods_table(numbers: Sequence[Number], unit: str, further_metrics: Sequence[str] = ("hd95",)) -> Table:
    """Return one line an arm: mean, median and worst Dice over all organs, and means of `further_metrics`."""
    cells = {
        (*_arm(n), n.metric): with_interval(n.mean, n.low, n.high, n.metric) for n in numbers if n.label == OVERALL
    }
    rows = []
    for dice in _pick(numbers, OVERALL, "dice"):
        rows.append(
            [
                dice.method,
                dice.budget,
                str(dice.seeds),
                str(dice.patients),
                with_interval(dice.mean, dice.low, dice.high, "dice"),
                format_metric(dice.median, "dice"),
                f"{format_metric(dice.worst, 'dice')} (patient {dice.worst_patient})",
                *(cells.get((*_arm(dice), metric), "–") for metric in further_metrics),
            ]
        )
    columns = ["Method", "Labels", "Seeds", "Patients", "Mean Dice [95%]", "Median Dice", "Worst Dice"]
    return Table(
        "Methods, mean over all organs",
        [*columns, *(f"Mean {metric_heading(metric, unit)} [95%]" for metric in further_metrics)],
        rows,
        note="Labels: labelled training images. [95%]: bootstrap interval over patients, and over seeds where there "
        "are several; with one seed it leaves out the chance of training. Median and worst are over patients.",
    )


def organ_table(numbers: Sequence[Number], metric: str, unit: str) -> Table:
    """Return one line an arm, one column an organ: mean of a metric with its interval. Numbers of one dataset."""
    measured = pd.DataFrame(
        [(*_arm(n), n.label, with_interval(n.mean, n.low, n.high, metric)) for n in numbers if n.metric == metric],
        columns=["method", "budget", "label", "text"],
    )
    labels = [label for label in measured["label"].unique() if label != OVERALL]
    wide = measured.set_index(["method", "budget", "label"])["text"].unstack("label")
    wide = wide.reindex(index=dict.fromkeys(_arm(n) for n in numbers), columns=labels, fill_value="–").fillna("–")
    rows = [[*arm, *texts] for arm, texts in zip(wide.index, wide.to_numpy(), strict=True)]
    title, _, units = metric_heading(metric, unit).partition(", ")
    return Table(
        ", ".join(filter(None, [f"{title} by organ", units, "mean [95%]"])), ["Method", "Labels", *labels], rows
    )


def every_metric_table(numbers: Sequence[Number], unit: str, tolerances: Sequence[float] = ()) -> Table:
    """Return one line an arm and metric, over all organs: mean, median and worst patient. One dataset."""
    rows = [
        [
            n.method,
            metric_heading(n.metric, unit),
            n.budget,
            with_interval(n.mean, n.low, n.high, n.metric),
            format_metric(n.median, n.metric),
            f"{format_metric(n.worst, n.metric)} (patient {n.worst_patient})",
        ]
        for metric in METRICS
        for n in _pick(numbers, OVERALL, metric)
    ]
    measured = {number.metric for number in numbers}
    notes = []
    if "nsd" in measured and tolerances:
        notes.append(f"Surface Dice within {' or '.join(f'{t:g}' for t in tolerances)} {unit}.")
    if measured & {"volume_difference", "area_difference"}:
        notes.append(
            "Differences are predicted minus true, so those of organs and patients can cancel; worst: furthest from 0."
        )
    if "ece" in measured:
        notes.append("Calibration error and Brier score: over all pixels, most of which are easy background.")
    columns = ["Method", "Metric", "Labels", "Mean [95%]", "Median", "Worst"]
    return Table("Every metric, mean over all organs", columns, rows, texts=2, note=" ".join(notes))


def calibration_table(pooled: Pooled) -> Table:
    """Return one line an arm and region: confidence, accuracy, calibration error, AUROC of entropy for errors."""
    rows = []
    for arm, bins in pooled.items():
        for region in REGIONS:
            pixels, confidence, right = bins[region, "confidence"].sum(axis=0)
            if not pixels:
                continue
            measures = calibration_error(bins[region, "confidence"]), error_detection_auroc(bins[region, "entropy"])
            values = (confidence / pixels, right / pixels, *measures)
            cells = ("–" if value is None else f"{value:.3f}" for value in values)
            rows.append([arm.method, region, arm.budget, f"{pixels / 1e6:.3f}", *cells])
    columns = ["Method", "Region", "Labels", "Pixels, million", "Mean confidence", "Accuracy", "Calibration error"]
    return Table(
        "Calibration, all pixels of all cases together",
        [*columns, "Error found by entropy"],
        rows,
        texts=2,
        note="Foreground: where truth or prediction is not background. Correct background is left out there, so even a "
        "perfectly calibrated network scores above 0. Error found by entropy: chance that a wrong pixel has a higher "
        "entropy than a right one (0.5: entropy says nothing).",
    )


def comparison_table(comparisons: Sequence[Comparison], unit: str, notes: Sequence[str] = ()) -> Table:
    """Return one line an arm and metric: difference from the reference, effect size, p, p after Holm's correction.

    `notes` are warnings that follow the table's own note.
    """
    rows = []
    for item in comparisons:
        test, gap = item.test, item.test.difference
        better = "better" if METRICS[item.metric][2] * gap.mean > 0 else "worse"
        rows.append(
            [
                item.arm.method,
                item.arm.budget,
                metric_heading(item.metric, unit),
                str(test.n),
                with_interval(gap.mean, gap.low, gap.high, item.metric),
                better if item.p_holm < ALPHA else "no difference shown",
                f"{test.effect:+.2f}",
                format_p(test.p),
                format_p(item.p_holm),
            ]
        )
    columns = ["Method", "Labels", "Metric", "Patients", "Difference [95%]", "Which is", "Effect", "p", "p (Holm)"]
    return Table(
        f"Difference from {comparisons[0].reference}",
        columns,
        rows,
        note="Wilcoxon signed-rank test over patients, two-sided; values averaged over seeds. Effect: matched-pairs "
        "rank-biserial correlation, from -1 to +1. Holm's correction over the comparisons of one metric."
        + "".join(f" {note}" for note in notes),
    )


def format_p(p: float) -> str:
    """Format a p value with four decimals."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def count(number: int, noun: str) -> str:
    """Format `1 patient`, `2 patients`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _arm(number: Number) -> tuple[str, str]:
    return number.method, number.budget


def _pick(numbers: Sequence[Number], label: str, metric: str) -> list[Number]:
    return [number for number in numbers if number.label == label and number.metric == metric]
