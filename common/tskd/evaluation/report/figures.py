"""Plots of the report: distributions, paired lines, Dice against budget, training curves."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tskd.evaluation.calibration import REGIONS, SCALES
from tskd.evaluation.reliability import Pooled, reliability_curve
from tskd.evaluation.report.runs import Arm, Arms, Run, budget_number
from tskd.evaluation.report.summary import Number, seed_averages
from tskd.evaluation.rows import OVERALL, organs

# Okabe and Ito's palette (2008), told apart with any common colour blindness; markers say the same again
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_CURVES = 12
DPI = 150


@dataclass(frozen=True)
class Picture:
    """A figure file with its words and its width on the page in CSS pixels; `small` ones stand side by side."""

    path: Path
    title: str
    alt: str
    caption: str
    width: int
    small: bool = False


def save(figure: Figure, folder: Path, name: str, title: str, alt: str, caption: str, small: bool = False) -> Picture:
    """Write a figure as `<folder>/<name>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
    return Picture(path, title, alt, caption, round(figure.get_figwidth() * 100), small)


def style(methods: Sequence[str], method: str) -> tuple[str, str]:
    """Return colour and marker of a method, the same in every figure."""
    index = methods.index(method)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def dice_boxes(arms: Arms, methods: Sequence[str]) -> Figure:
    """Draw a box plot of each patient's Dice, by organ and method; one row of axes a budget. Arms of one dataset."""
    labels = organs(row for seeds in arms.values() for rows in seeds.values() for row in rows)
    labels = [OVERALL, *labels] if len(labels) > 1 else labels
    budgets = list(dict.fromkeys(arm.budget for arm in arms))
    figure, axes = _axes(len(budgets), 1, width=9.5, height=3.4)
    for ax, budget in zip(axes, budgets, strict=True):
        budget_arms = [arm for arm in arms if arm.budget == budget]
        width = min(0.8 / len(budget_arms), 0.3)
        for index, arm in enumerate(budget_arms):
            colour, marker = style(methods, arm.method)
            for position, label in enumerate(labels):
                values = list(seed_averages(arms[arm], "dice", label).values())
                if not values:
                    continue
                x = position + (index - (len(budget_arms) - 1) / 2) * width
                ax.boxplot(
                    values,
                    positions=[x],
                    widths=width * 0.8,
                    showfliers=False,
                    patch_artist=True,
                    boxprops={"facecolor": colour, "alpha": 0.3, "edgecolor": colour},
                    medianprops={"color": "black"},
                    whiskerprops={"color": colour},
                    capprops={"color": colour},
                )
                spread = np.linspace(-0.15, 0.15, len(values)) * width if len(values) > 1 else [0.0]
                ax.plot(x + np.asarray(spread), values, marker, color=colour, markersize=3.5, alpha=0.85)
            ax.plot([], [], marker, color=colour, label=arm.method)
        ax.set_xticks(range(len(labels)), labels)
        ax.set_xlim(-0.5, len(labels) - 0.5)
        if len(labels) > 1:
            ax.axvline(0.5, color="0.75", linewidth=0.8)
        ax.set_ylabel("Dice")
        ax.set_title(f"{budget} labels", loc="left", fontsize=10)
        _legend_right(ax)
    _dice_limits(axes, arms)
    return figure


def paired_lines(arms: Arms, methods: Sequence[str]) -> Figure:
    """Draw each patient's Dice under each method, joined by a line; a column of axes a budget. One dataset."""
    grouped: dict[str, list[Arm]] = {}
    for arm in arms:
        grouped.setdefault(arm.budget, []).append(arm)
    grouped = {budget: budget_arms for budget, budget_arms in grouped.items() if len(budget_arms) > 1}
    figure, axes = _axes(1, len(grouped), width=max(4.8, min(4.2 * len(grouped), 12)), height=4.0)
    for ax, (budget, budget_arms) in zip(axes, grouped.items(), strict=True):
        budget_arms = sorted(budget_arms, key=lambda arm: methods.index(arm.method))
        values = [seed_averages(arms[arm], "dice") for arm in budget_arms]
        for patient in dict.fromkeys(patient for column in values for patient in column):
            ax.plot([column.get(patient, np.nan) for column in values], "-", color="0.65", linewidth=1, zorder=1)
        for x, (arm, column) in enumerate(zip(budget_arms, values, strict=True)):
            colour, marker = style(methods, arm.method)
            ax.plot([x] * len(column), list(column.values()), marker, color=colour, markersize=5, zorder=2)
        means = [float(np.mean(list(column.values()))) for column in values]
        ax.plot(means, "-_", color="black", linewidth=2, markersize=16, markeredgewidth=2, zorder=3, label="mean")
        ax.set_xticks(range(len(budget_arms)), [_wrap(arm.method) for arm in budget_arms])
        ax.set_xlim(-0.4, len(budget_arms) - 0.6)
        ax.set_ylabel("mean Dice of a patient")
        ax.set_title(f"{budget} labels", loc="left", fontsize=10)
        ax.legend(frameon=False, fontsize=9, loc="lower right")
    _dice_limits(axes, arms)
    return figure


def dice_by_budget(numbers: Iterable[Number], methods: Sequence[str]) -> Figure:
    """Draw the mean Dice of each method against the number of labels, with 95% intervals. One dataset."""
    chosen = [n for n in numbers if n.metric == "dice" and n.label == OVERALL and np.isfinite(budget_number(n.budget))]
    figure, (ax,) = _axes(1, 1, width=7.5, height=4.0)
    budgets = sorted({budget_number(number.budget) for number in chosen})
    positions = {budget: index for index, budget in enumerate(budgets)}
    present = [method for method in methods if any(number.method == method for number in chosen)]
    for index, method in enumerate(present):
        method_numbers = sorted((n for n in chosen if n.method == method), key=lambda n: budget_number(n.budget))
        colour, marker = style(methods, method)
        x = [positions[budget_number(n.budget)] + (index - (len(present) - 1) / 2) * 0.06 for n in method_numbers]
        mean = np.array([n.mean for n in method_numbers])
        low = np.array([n.mean if n.low is None else n.low for n in method_numbers])
        high = np.array([n.mean if n.high is None else n.high for n in method_numbers])
        ax.errorbar(x, mean, yerr=[mean - low, high - mean], fmt=f"{marker}-", color=colour, capsize=3, label=method)
    ax.set_xticks(range(len(budgets)), [f"{budget:g}" for budget in budgets])
    ax.set_xlabel("labelled training images")
    ax.set_ylabel("mean Dice")
    ax.grid(axis="y", color="0.9")
    _legend_right(ax)
    return figure


def training_curves(runs: Sequence[Run], methods: Sequence[str]) -> tuple[Figure, list[str]]:
    """Draw logged values over training steps, a panel for each name; also return the names left out."""
    panels: dict[tuple[str, str], list[tuple[Arm, str, int]]] = {}
    for index, run in enumerate(runs):
        arm, seed = next(iter(run.arms))
        for curve in run.curves:
            panels.setdefault((curve.stage, curve.name), []).append((arm, seed, index))
    names = sorted(panels, key=lambda key: (key[0], key[1] != "loss", not key[1].startswith("validation"), key[1]))
    plotted, omitted = names[:MAX_CURVES], names[MAX_CURVES:]
    columns = min(3, len(plotted))
    figure, axes = _axes(-(-len(plotted) // columns), columns, width=3.6 * columns + 0.4, height=2.5)
    legend: dict[str, Line2D] = {}
    for ax, key in zip(axes, plotted, strict=False):
        for arm, _, index in panels[key]:
            curve = next(curve for curve in runs[index].curves if (curve.stage, curve.name) == key)
            colour, marker = style(methods, arm.method)
            mark = marker if len(curve.step) < 25 else None
            (line,) = ax.plot(
                curve.step, curve.value, color=colour, linewidth=1.4, marker=mark, markersize=3, alpha=0.8
            )
            legend.setdefault(arm.method, line)
        ax.set_title(": ".join(filter(None, key)).replace("_", " "), loc="left", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.tick_params(labelsize=8)
        ax.set_xlabel("step", fontsize=8)
        ax.grid(color="0.93")
    for ax in axes[len(plotted) :]:
        ax.set_visible(False)
    order = sorted(legend, key=methods.index)
    figure.legend(
        [legend[method] for method in order],
        order,
        loc="outside upper left",
        ncols=min(3, len(legend)),
        frameon=False,
        fontsize=9,
    )
    return figure, [": ".join(filter(None, key)) for key in omitted]


def reliability_diagram(pooled: Pooled, methods: Sequence[str]) -> Figure:
    """Draw accuracy against confidence and error against entropy: foreground above, all pixels below. One budget."""
    figure, axes = _axes(2, 2, width=9.0, height=3.6)
    for index, (region, scale) in enumerate((r, s) for r in reversed(REGIONS) for s in SCALES):
        ax = axes[index]
        for arm, bins in pooled.items():
            if not bins[region, scale].any():
                continue
            mean, accuracy, share = reliability_curve(bins[region, scale])
            colour, marker = style(methods, arm.method)
            height = accuracy if scale == "confidence" else 1 - accuracy
            ax.plot(mean, height, "-", color=colour, linewidth=1.2, alpha=0.8, zorder=2)
            ax.scatter(mean, height, s=12 + 90 * np.sqrt(share), color=colour, marker=marker, alpha=0.8, zorder=3)
        if scale == "confidence":
            ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=1)
        ax.set_xlim(-0.03, 1.05)
        ax.set_ylim(-0.03, 1.05)
        ax.set_xlabel("confidence" if scale == "confidence" else "entropy, share of the largest possible")
        ax.set_ylabel("accuracy" if scale == "confidence" else "share of wrong pixels")
        ax.set_title(region, loc="left", fontsize=10)
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
    names = sorted({arm.method for arm in pooled}, key=methods.index)
    handles = [Line2D([], [], color=style(methods, n)[0], marker=style(methods, n)[1], label=n) for n in names]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(names)), frameon=False, fontsize=9)
    return figure


def _axes(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    figure.get_layout_engine().set(hspace=0.06, wspace=0.04)  # type: ignore[union-attr,call-arg]
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _dice_limits(axes: Sequence[Axes], arms: Arms) -> None:
    """Set one range for all axes: the top at 1, the bottom just under the worst value."""
    values = [row.value for seeds in arms.values() for rows in seeds.values() for row in rows if row.metric == "dice"]
    bottom = max(-0.03, np.floor(min(values) * 10) / 10 - 0.03)
    for ax in axes:
        ax.set_ylim(bottom, 1.02)
        ax.grid(axis="y", color="0.9")
        ax.set_axisbelow(True)


def _legend_right(ax: Axes) -> None:
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _wrap(name: str, width: int = 14) -> str:
    """Break a name at blanks, hyphens and underscores, for a tick label."""
    lines = [""]
    for part in name.replace("_", "_ ").replace("-", "- ").split():
        joined = (lines[-1] + (" " if lines[-1] and lines[-1][-1] not in "_-" else "") + part).strip()
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    return "\n".join(lines)
