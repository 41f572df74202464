"""Dice against the number of labels, and how many labels a method saves.

Labels saved: the baseline's mean Dice is interpolated between its budgets, linearly in the logarithm of their size, and
never extrapolated. What it needs for the Dice of a method with N labels is where its curve first reaches that Dice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tskd.errors import TskdError
from tskd.evaluation.report.figures import COLOURS, DPI, MARKERS
from tskd.evaluation.report.runs import Arms
from tskd.evaluation.report.summary import Number, all_numbers, seed_averages
from tskd.evaluation.report.tables import Table
from tskd.evaluation.rows import OVERALL
from tskd.files import atomic, write_text

INK, RULE = "#1b2530", "#d5dce3"
# in dark mode lighter shades of the same hues; black becomes white
DARK = dict(zip((INK, RULE, *COLOURS), ("#e8edf2", "#36414c", "#4da6dd", "#f0b73d", "#35c79a", "#e2a3c7", "#8acbf0",
                                        "#f08a4b", "#ffffff"), strict=True))  # fmt: skip
# names of methods in the legend, where code's are not plain
METHODS = {"supervised": "labels alone", "tskd": "distilled (tskd)", "fixmatch": "FixMatch", "nnunet": "nnU-Net"}
NAMES = {"chaos_mr": "CHAOS MR", "isic2017": "ISIC 2017", "usgra": "USGRA", "chase_db1": "CHASE_DB1"}


@dataclass(frozen=True)
class LabelsSaved:
    """What a baseline needs for the Dice of a method with `labels`; infinite beyond its budgets, 0 below them."""

    dataset: str
    labels: float
    unit: str
    patients: int
    dice: float
    needed: float
    low: float
    high: float
    smallest: float
    largest: float

    @property
    def budget(self) -> str:
        """The number of labels in words."""
        return f"{self.labels:g} {self.unit.removesuffix('s') if self.labels == 1 else self.unit}"


def budget_size(budget: str) -> tuple[float, str]:
    """Return the number of a budget and what is counted: `20` is (20, "images"), `3 patients` (3, "patients").

    Raises:
        TskdError: a budget without a number, such as `all`.
    """
    number, _, unit = budget.partition(" ")
    try:
        return float(number), "patients" if unit in ("patient", "patients") else unit or "images"
    except ValueError:
        raise TskdError(f"budget: expected a number of labels, found {budget!r}") from None


def labels_needed(sizes: Sequence[float], dice: NDArray, reached: NDArray) -> NDArray:
    """Return the number of labels at which a curve first reaches a Dice.

    Args:
        sizes: (budgets,) numbers of labels, ascending.
        dice: (samples, budgets) mean Dice of the baseline.
        reached: (samples,) mean Dice of the method.

    Returns:
        (samples,) numbers of labels: 0 where the smallest budget is above the Dice, infinite where none reaches it.
    """
    above = dice >= reached[:, None]
    first = np.where(above.any(axis=1), above.argmax(axis=1), len(sizes))
    needed = np.where(first == len(sizes), np.inf, 0.0)
    inside = np.flatnonzero((first > 0) & (first < len(sizes)))
    right = first[inside]
    low, high = dice[inside, right - 1], dice[inside, right]
    log = np.log(np.asarray(sizes, dtype=float))
    needed[inside] = np.exp(log[right - 1] + (reached[inside] - low) / (high - low) * (log[right] - log[right - 1]))
    equal = np.flatnonzero((first == 0) & (dice[:, 0] == reached))
    needed[equal] = sizes[0]
    return needed


def labels_saved(arms: Arms, method: str, baseline: str, resamples: int = 5000, seed: int = 0) -> list[LabelsSaved]:
    """Compute how many labels the baseline needs for each Dice of the method, with a bootstrap interval over patients.

    Seeds are averaged. Only patients count on which the method at this budget, and the baseline at all of its budgets,
    were tested. A baseline with one budget has no curve, and gives nothing.

    Args:
        arms: rows of metrics.csv.
        method: what saves labels.
        baseline: what would need more of them.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
    """
    saved = []
    for dataset, unit in dict.fromkeys((arm.dataset, budget_size(arm.budget)[1]) for arm in arms):
        curve, methods = (_by_size(arms, dataset, unit, name) for name in (baseline, method))
        if len(curve) < 2:
            continue
        for size, values in methods.items():
            patients = sorted(set(values).intersection(*curve.values()))
            if not patients:
                continue
            table = np.array([[column[patient] for patient in patients] for column in (values, *curve.values())])
            draws = np.random.default_rng(seed).multinomial(
                len(patients), [1 / len(patients)] * len(patients), resamples
            )
            means = np.vstack([table.mean(axis=1), draws @ table.T / len(patients)])
            needed = labels_needed(list(curve), means[:, 1:], means[:, 0])
            low, high = np.quantile(needed[1:], [0.025, 0.975], method="inverted_cdf")
            ends = (min(curve), max(curve))
            saved.append(
                LabelsSaved(dataset, size, unit, len(patients), float(means[0, 0]), float(needed[0]), low, high, *ends)
            )
    return saved


def labels_saved_table(saved: Sequence[LabelsSaved], method: str, baseline: str) -> Table:
    """Return the table of labels saved."""
    rows = []
    for item in saved:
        interval = " to ".join(labels_text(item, value) for value in (item.low, item.high))
        factor = "" if item.needed in (0.0, np.inf) else f"{item.needed / item.labels:.1f}"
        factor = factor or (f"over {item.largest / item.labels:.1f}" if item.needed else "")
        name = NAMES.get(item.dataset, item.dataset)
        rows.append(
            [name, item.budget, str(item.patients), f"{item.dice:.3f}", labels_text(item, item.needed),
             interval, factor]
        )  # fmt: skip
    columns = ["Data set", "Labels", "Tested", f"Dice of {method}", f"{baseline} needs", "95%", "times as many"]
    note = (
        f"Mean Dice of {baseline}, interpolated between its budgets on the log scale, never beyond them. Interval: "
        f"bootstrap over the patients (images, where each is one) on which {method} at this budget and {baseline} at "
        "all of its budgets were tested; with one seed it leaves out the chance of training."
    )
    return Table(f"Labels that {baseline} needs for the Dice of {method}", columns, rows, texts=2, note=note)


def draw(arms: Arms, methods: Sequence[str], path: Path) -> None:
    """Draw Dice against labels, a panel a data set, as `path`.svg, which follows dark mode, and `path`.png."""
    numbers = [number for number in all_numbers(arms, ("dice",), by_organ=False) if number.label == OVERALL]
    panels = list(dict.fromkeys((number.dataset, budget_size(number.budget)[1]) for number in numbers))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tskd", "font.family": "sans-serif", "text.color": INK}):
        figure = Figure(figsize=(0.4 + 3.3 * len(panels), 3.7), layout="constrained")
        for column, (dataset, unit) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), column + 1)
            shown = [number for number in numbers if (number.dataset, budget_size(number.budget)[1]) == (dataset, unit)]
            _panel(axes, shown, methods, unit)
            axes.set_title(NAMES.get(dataset, dataset), loc="left", fontsize=11)
            axes.set_ylabel("" if column else "mean Dice, 95% interval", color=INK)
        legends = [axes.get_legend_handles_labels() for axes in figure.axes]
        handles = {label: handle for each in legends for handle, label in zip(*each, strict=True)}
        names = [method for method in methods if method in handles]
        words = [METHODS.get(name, name) for name in names]
        figure.legend([handles[name] for name in names], words, loc="outside lower center", ncols=5, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path.with_suffix(".png")) as draft:
            figure.savefig(draft, dpi=DPI, facecolor="white", format="png", metadata={"Software": None})
        svg = StringIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    write_text(path.with_suffix(".svg"), _follow_dark_mode(svg.getvalue()))


def _by_size(arms: Arms, dataset: str, unit: str, method: str) -> dict[float, dict[str, float]]:
    """Return number of labels -> patient -> Dice of a method, ascending."""
    curve = {
        budget_size(arm.budget)[0]: seed_averages(seeds, "dice")
        for arm, seeds in arms.items()
        if arm.dataset == dataset and arm.method == method and budget_size(arm.budget)[1] == unit
    }
    return dict(sorted(curve.items()))


def labels_text(item: LabelsSaved, value: float) -> str:
    """Return a number of labels in words; beyond the baseline's budgets "over" the largest or "under" the smallest."""
    if value in (0.0, np.inf):
        return f"under {item.smallest:g}" if value == 0 else f"over {item.largest:g}"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _panel(axes: Axes, numbers: Sequence[Number], methods: Sequence[str], unit: str) -> None:
    """Draw one data set; the methods stand a little apart, so that their intervals do not hide one another.

    What was tested on fewer patients than the rest is hollow and not joined by a line, as its mean is of others.
    """
    most = max(number.patients for number in numbers)
    sizes = sorted({budget_size(number.budget)[0] for number in numbers})
    for index, method in enumerate(methods):
        line = sorted((budget_size(number.budget)[0], number) for number in numbers if number.method == method)
        if not line:
            continue
        mean = np.array([number.mean for _, number in line])
        low = np.array([number.mean if number.low is None else number.low for _, number in line])
        high = np.array([number.mean if number.high is None else number.high for _, number in line])
        at = np.array([size for size, _ in line]) * 1.035 ** (index - (len(methods) - 1) / 2)
        whole = np.array([number.patients == most for _, number in line])
        options: dict[str, Any] = {"color": COLOURS[index], "capsize": 2.5, "markersize": 5, "linewidth": 1.5}
        error = np.array([mean - low, high - mean])
        axes.errorbar(at[whole], mean[whole], yerr=error[:, whole], fmt=f"{MARKERS[index]}-", label=method, **options)
        if not whole.all():
            axes.errorbar(
                at[~whole], mean[~whole], yerr=error[:, ~whole], fmt=MARKERS[index], markerfacecolor="none", **options
            )
    fewer = sorted({number.patients for number in numbers if number.patients < most})
    if fewer:
        words = f"hollow: {' or '.join(map(str, fewer))} of {most} tested"
        axes.text(0.98, 0.03, words, transform=axes.transAxes, ha="right", fontsize=8, color=INK)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlim(min(sizes) / 1.35, max(sizes) * 1.35)
    axes.set_xlabel(f"labelled {unit}", color=INK)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color=RULE)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)


def _follow_dark_mode(svg: str) -> str:
    """Replace the colours of a figure by variables that a dark page sets to lighter ones."""
    for index, colour in enumerate(DARK):
        svg = svg.replace(colour.lower(), f"var(--c{index}, {colour})")
    rules = "; ".join(f"--c{index}: {colour}" for index, colour in enumerate(DARK.values()))
    style = f"<style>@media (prefers-color-scheme: dark) {{ svg {{ {rules} }} }}</style>"
    return svg.replace("<defs>", f"{style}\n <defs>", 1)
