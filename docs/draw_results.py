"""Draw docs/img/results.svg, and write the tables of results in the README and docs/results.md: `make figures`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tskd.evaluation.report.label_efficiency import LabelsSaved, labels_saved, labels_text
from tskd.evaluation.report.runs import Arms, Run, collect
from tskd.evaluation.report.summary import OVERALL, Number, all_numbers, compare
from tskd.evaluation.rows import read_rows
from tskd.evaluation.statistics import ALPHA

DOCS = Path(__file__).resolve().parent
README, PAGE = DOCS.parent / "README.md", DOCS / "results.md"
TABLE = re.compile(r"(<!-- results table[^>]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
SHAPES = {"teacher": "square", "labels alone": "circle", "distilled": "diamond"}
# one line of the figure: title, network of the students, CSV, number of labels, methods in the order of SHAPES
LITE, FLEXIBLE = "LiteUNet from ImageNet", "FlexibleUNet from scratch"
RECIPE, RIVALS = ("teacher", "supervised", "tskd"), {"fixmatch", "task_agnostic", "tskd_400_steps"}
LINES: list[tuple[str, str, str, str, tuple[str, str, str]]] = [
    ("CHAOS MR, 1 labelled patient", LITE, "chaos_mr_whole_patients", "1 patient", RECIPE),
    ("CHAOS MR, 2 labelled patients", LITE, "chaos_mr_whole_patients", "2 patients", RECIPE),
    ("CHAOS MR, 3 labelled patients", LITE, "chaos_mr_whole_patients", "3 patients", RECIPE),
    ("CHAOS MR, 20 labelled slices", LITE, "chaos_mr_slices", "20", RECIPE),
    ("USGRA nerves, vessels, 10 labels", LITE, "usgra_label_efficiency", "10", RECIPE),
    ("USGRA nerves, vessels, 20 labels", LITE, "usgra_label_efficiency", "20", RECIPE),
    ("USGRA nerves, vessels, 80 labels", LITE, "usgra_80_labels", "80", RECIPE),
    ("ISIC 2017 lesions, 10 labels", LITE, "isic2017_label_efficiency", "10", RECIPE),
    ("ISIC 2017 lesions, 20 labels", LITE, "isic2017_label_efficiency", "20", RECIPE),
    ("ISIC 2017 lesions, 40 labels", LITE, "isic2017_40_labels", "40", RECIPE),
    ("CHASE_DB1 vessels, 4 labels", LITE, "chase_db1_high_res", "4", ("teacher_high_res", "supervised", "tskd")),
    ("CHAOS MR, 20 labels", FLEXIBLE, "chaos_mr_20_labels", "20",
     ("teacher_full_body_x3", "scratch_flexible_unet_body_x2", "tskd_flexible_unet_body_x2")),
    ("CHAOS MR, 50 labels", FLEXIBLE, "chaos_mr_budgets", "50", ("teacher", "scratch", "tskd")),
    ("CHAOS MR, 100 labels", FLEXIBLE, "chaos_mr_budgets", "100", ("teacher", "scratch", "tskd")),
    ("USGRA, 80 labels", FLEXIBLE, "usgra", "80",
     ("teacher_full_x3", "scratch_flexible_unet_x2", "tskd_flexible_unet_x2")),
    ("ISIC 2017, 40 labels", FLEXIBLE, "isic2017", "40",
     ("teacher_full_x3", "scratch_flexible_unet_x2", "tskd_flexible_unet_x2")),
    ("CHASE_DB1 vessels, 10 labels", FLEXIBLE, "chase_db1", "10", ("teacher", "scratch", "tskd")),
]  # fmt: skip
# lines of the figure that the tables have: in words, tested, page of the numbers; the README has those of its own
ROWS = {
    "CHAOS MR, 1 labelled patient": ("CHAOS MR, 4 organs, 1 patient", "patients", "chaos_whole_patients"),
    "CHAOS MR, 2 labelled patients": ("CHAOS MR, 2 patients", "patients", "chaos_whole_patients"),
    "CHAOS MR, 3 labelled patients": ("CHAOS MR, 3 patients", "patients", "chaos_whole_patients"),
    "CHAOS MR, 20 labelled slices": ("CHAOS MR, 20 slices", "patients", "chaos_20_labels"),
    "USGRA nerves, vessels, 10 labels": ("USGRA ultrasound, 10 images", "images", "label_efficiency"),
    "USGRA nerves, vessels, 20 labels": ("USGRA, 20 images", "images", "label_efficiency"),
    "USGRA nerves, vessels, 80 labels": ("USGRA, 80 images", "images", "more_labels"),
    "ISIC 2017 lesions, 10 labels": ("ISIC 2017 skin lesions, 10 images", "images", "label_efficiency"),
    "ISIC 2017 lesions, 20 labels": ("ISIC 2017, 20 images", "images", "label_efficiency"),
    "ISIC 2017 lesions, 40 labels": ("ISIC 2017, 40 images", "images", "more_labels"),
    "CHASE_DB1 vessels, 4 labels": ("CHASE_DB1 retinal vessels, 4 images", "children", "chase_db1"),
}
IN_README = ("CHAOS MR, 1 labelled patient", "CHAOS MR, 2 labelled patients", "USGRA nerves, vessels, 10 labels",
             "USGRA nerves, vessels, 80 labels", "ISIC 2017 lesions, 10 labels")  # fmt: skip
# CSVs with the curves of the labels alone, as on docs/results/label_efficiency.md
CURVES = ("chaos_mr_whole_patients", "isic2017_label_efficiency", "isic2017_40_labels", "usgra_label_efficiency",
          "usgra_80_labels")  # fmt: skip
LEFT, WIDTH, TOP, STEP, LOW, HIGH = 270, 900, 70, 62, 0.3, 1.0

STYLE = """
  .page { fill: #ffffff } text { fill: #1b2530 } .small { font-size: 12px; fill: #45525f } .grid { stroke: #d5dce3 }
  .teacher { fill: #7a7a7a; stroke: #7a7a7a } .alone { fill: #d55e00; stroke: #d55e00 }
  .distilled { fill: #0072b2; stroke: #0072b2 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #14181d } text { fill: #e8edf2 } .small { fill: #b4c0cb } .grid { stroke: #36414c }
    .teacher { fill: #b5b5b5; stroke: #b5b5b5 } .alone { fill: #e69f00; stroke: #e69f00 }
    .distilled { fill: #56b4e9; stroke: #56b4e9 } }
"""


@cache
def dice(csv: str, budget: str, methods: tuple[str, ...]) -> Arms:
    """Return the Dice rows of a results CSV, by method and seed."""
    path = next((DOCS / "results").glob(f"{csv}.csv*"))
    rows = [row for row in read_rows(path) if row.metric == "dice" and row.budget == budget and row.method in methods]
    if missing := set(methods) - {row.method for row in rows}:
        raise SystemExit(f"{csv}.csv: expected rows of {', '.join(missing)} with {budget} labels, found none")
    return collect([Run(path=path, rows=rows)])


def methods_of(csv: str, budget: str) -> set[str]:
    """Return the names of the methods of a results CSV with this number of labels."""
    return {row.method for row in read_rows(next((DOCS / "results").glob(f"{csv}.csv*"))) if row.budget == budget}


@cache
def saved() -> dict[tuple[str, str], LabelsSaved]:
    """Return what the labels alone need for the Dice of the distilled student, by data set and budget."""
    paths = [next((DOCS / "results").glob(f"{csv}.csv*")) for csv in CURVES]
    rows = [row for path in paths for row in read_rows(path) if row.method in RECIPE]
    arms = collect([Run(path=paths[0], rows=rows)])
    return {
        (item.dataset, item.budget.removesuffix(" images")): item for item in labels_saved(arms, "tskd", "supervised")
    }


@cache
def means(csv: str, budget: str, methods: tuple[str, ...]) -> list[Number]:
    """Return each method's mean Dice over patients with its 95% interval, as the results pages have it."""
    numbers = {n.method: n for n in all_numbers(dice(csv, budget, methods)) if n.label == OVERALL}
    return [numbers[method] for method in methods]


def _mark(shape: str, style: str, x: float, y: float) -> str:
    if shape == "circle":
        return f'<circle class="{style}" cx="{x:.1f}" cy="{y}" r="5.5"/>'
    if shape == "square":
        return f'<rect class="{style}" x="{x - 5:.1f}" y="{y - 5}" width="10" height="10"/>'
    return f'<path class="{style}" d="M{x:.1f} {y - 7} l7 7 l-7 7 l-7 -7 z"/>'


def figure() -> str:
    """Return the figure as SVG: a line a data set and number of labels, a mark with its interval a method."""

    def x(dice: float) -> float:
        return LEFT + (dice - LOW) / (HIGH - LOW) * (WIDTH - LEFT - 40)

    height = TOP + STEP * len(LINES) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t" '
        'font-family="Segoe UI, Roboto, Helvetica, Arial, sans-serif" font-size="14">',
        '<title id="t">Mean Dice on test patients with 95% intervals: teacher, student of the labels alone, distilled'
        " student</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="10"/>',
        f'<text x="{LEFT}" y="22" font-weight="600">Mean Dice on test patients, 95% interval over patients</text>',
    ]
    for i, (name, shape) in enumerate(SHAPES.items()):
        parts.append(_mark(shape, name.split()[-1], LEFT + 6 + 150 * i, 44))
        parts.append(f'<text x="{LEFT + 20 + 150 * i}" y="49">{name}</text>')
    bottom = TOP + STEP * len(LINES)
    for tenth in range(round(LOW * 10), round(HIGH * 10) + 1):
        at = x(tenth / 10)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
        parts.append(f'<text class="small" x="{at:.1f}" y="{bottom + 20}" text-anchor="middle">{tenth / 10:.1f}</text>')
    for i, (title, network, csv, budget, methods) in enumerate(LINES):
        middle = TOP + STEP * i + STEP / 2 - 4
        drawn = means(csv, budget, methods)
        unit = "images" if csv.startswith(("usgra", "isic2017")) else "patients"
        parts.append(f'<text x="16" y="{middle}">{title}</text>')
        parts.append(f'<text class="small" x="16" y="{middle + 17}">{drawn[0].patients} test {unit}, {network}</text>')
        for (name, shape), number, offset in zip(SHAPES.items(), drawn, (-16, 0, 16), strict=True):
            mean, y, style = number.mean, middle + offset, name.split()[-1]
            low, high = (mean if end is None else end for end in (number.low, number.high))
            parts.append(
                f'<line class="{style}" stroke-width="2" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>'
            )
            parts.append(_mark(shape, style, x(mean), y))
            parts.append(f'<text class="small" x="{x(high) + 9:.1f}" y="{y + 4}">{mean:.3f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def table(titles: Sequence[str] = tuple(ROWS), *, intervals: bool = True) -> str:
    """Return a table of the default recipe in Markdown: Dice of the three methods, the paired test, labels saved.

    The student that the test finds better is set in bold. Holm's correction is over the comparisons of the distilled
    student with all others of its data set and budget, as on the results pages. With `intervals` the difference has
    its interval, the name a link to the page of its numbers, and a column says how many seeds there are.
    """
    seeds = ("seeds | ", "---: | ") if intervals else ("", "")
    lines = [
        f"| data, labels | test | {seeds[0]}teacher | labels alone | distilled | difference | labels needed alone |",
        f"| --- | --- | {seeds[1]}---: | ---: | ---: | --- | --- |",
    ]
    for title, _, csv, budget, methods in LINES:
        if title not in titles:
            continue
        name, unit, page = ROWS[title]
        numbers = means(csv, budget, methods)
        compared = compare(dice(csv, budget, (*methods, *(RIVALS & methods_of(csv, budget)))), methods[2])
        alone = next(item for item in compared if item.arm.method == methods[1])
        cells = [f"{number.mean:.3f}" for number in numbers]
        p = "p < 0.0001" if alone.p_holm < 0.0001 else f"p = {alone.p_holm:.{2 if alone.p_holm > ALPHA else 4}f}"
        if alone.p_holm > ALPHA:
            words = "none shown"
        else:
            better = 2 if alone.test.difference.mean < 0 else 1
            cells[better] = f"**{cells[better]}**"
            words = "better" if better == 2 else "worse"
        if intervals:
            name = f"[{name}](results/{page}.md)"
            cells.insert(0, str(numbers[2].seeds))
            gain = alone.test.difference  # of the labels alone against the distilled student
            words = f"{-gain.mean:+.3f} [{-gain.high:.3f}, {-gain.low:.3f}], {words}"
        needed = saved().get((numbers[2].dataset, budget))
        lines.append(
            f"| {name} | {numbers[2].patients} {unit} | {' | '.join(cells)} | {words}, {p} "
            f"| {_needed(needed) if needed else ''} |"
        )
    return "\n".join(lines) + "\n"


def _needed(saved: LabelsSaved) -> str:
    needed, *ends = (labels_text(saved, value) for value in (saved.needed, saved.low, saved.high))
    return needed if set(ends) == {needed} else f"{needed} [{', '.join(ends)}]"


def main() -> None:
    """Write the figure, and the tables into the README and the page of results."""
    (DOCS / "img" / "results.svg").write_text(figure(), encoding="utf-8")
    for path, lines in ((README, table(IN_README, intervals=False)), (PAGE, table())):
        text = path.read_text(encoding="utf-8")
        path.write_text(TABLE.sub(lambda match, new=lines: match[1] + new + match[3], text), encoding="utf-8")


if __name__ == "__main__":
    main()
