"""The report of one or more runs: report.html (one file), report.md, figures/ and numbers.csv."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from common import __version__
from common.data import datalist

from . import tables
from .figures import Picture
from .numbers import Comparison, Number, all_numbers, choose_reference, compare, write_numbers
from .pictures import case_pictures, curve_pictures, result_pictures, synthetic_pictures
from .rows import OVERALL, atomic
from .runs import Run, collect, distance_unit, load_run, run_order
from .synthetic import memorisation_picture, memorisation_table
from .tables import Table


@dataclass
class Section:
    """A part of the report: text, tables and pictures, in this order."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_report(
    runs: Sequence[str | Path],
    output: str | Path,
    reference: str | None = None,
    dataset: str | Path | None = None,
    synthetic: str | Path | None = None,
    title: str = "Segmentation report",
) -> Path:
    """Write the report of evaluated runs.

    Args:
        runs: run folders with metrics.csv; what else they hold (versions.json, train_log.csv, cases.json with
            predictions, profile.json) is shown too.
        output: folder for report.html, report.md, numbers.csv and figures/.
        reference: method that the others are compared with; None for the first method.
        dataset: path of dataset.json, for the sizes of the split and real images beside the synthetic ones.
        synthetic: folder of synthetic images with its dataset.json, and what the memorisation
            check wrote there (memorisation.csv, .json and .png), if anything.
        title: heading of the report.

    Returns:
        Path of report.html.

    Raises:
        TskdError: a folder without metrics.csv, the same result twice, an unknown reference, or an unreadable file.
    """
    output = Path(output)
    loaded = [load_run(Path(run)) for run in dict.fromkeys(runs)]
    arms = collect(loaded)
    loaded.sort(key=lambda run: run_order(run, arms))
    numbers = all_numbers(arms)
    methods = list(dict.fromkeys(arm.method for arm in arms))
    chosen = choose_reference(arms, reference)
    comparisons = compare(arms, chosen) if chosen else []
    data = datalist.read(dataset) if dataset else None

    sections = [_summary(numbers, comparisons)]
    datasets = list(dict.fromkeys(arm.dataset for arm in arms))
    for name in datasets:
        own = {arm: seeds for arm, seeds in arms.items() if arm.dataset == name}
        section = _results(name, loaded, numbers, comparisons, chosen, several=len(datasets) > 1)
        own_numbers = [number for number in numbers if number.dataset == name]
        section.pictures = result_pictures(output / "figures", own, own_numbers, methods)
        sections.append(section)
    pictures, notes = case_pictures(output / "figures", loaded)
    volumes = any("slice" in picture.caption for picture in pictures)
    text = ["Slice with the largest true area; the patient's right is at the left. Scores are of the whole volume."]
    sections.append(Section("Best, median and worst case", text if volumes else [], pictures=pictures, notes=notes))
    if synthetic:
        pictures = synthetic_pictures(output / "figures", Path(synthetic), Path(dataset) if dataset else None)
        sheet = memorisation_picture(Path(synthetic), output / "figures")
        pictures += [sheet] if sheet else []
        table = memorisation_table(Path(synthetic))
        sections.append(Section("Synthetic images", tables=[table] if table else [], pictures=pictures))

    pictures, notes = curve_pictures(output / "figures", loaded, methods)
    sections.append(Section("Training curves", pictures=pictures, notes=notes))
    sections.append(_what_was_run(loaded, data))

    write_numbers(output / "numbers.csv", numbers)
    shown = [part for part in sections if part.text or part.tables or part.pictures or part.notes]
    _render("report.md.j2", output / "report.md", title, shown)
    return _render("report.html.j2", output / "report.html", title, shown)


def _summary(numbers: Sequence[Number], comparisons: Sequence[Comparison]) -> Section:
    text = []
    for dataset in dict.fromkeys(number.dataset for number in numbers):
        dice = [n for n in numbers if (n.dataset, n.label, n.metric) == (dataset, OVERALL, "dice")]
        best = max(dice, key=lambda number: number.mean)
        score = tables.with_interval(best.mean, best.low, best.high, "dice")
        highest = f"highest mean Dice {score}" if len(dice) > 1 else f"mean Dice {score}"
        text.append(
            f"{dataset}: {highest} ({best.method}, {best.budget} labels; {_count(best.patients, 'patient')}, "
            f"{_count(best.seeds, 'seed')})."
        )
    for item in comparisons:
        if item.metric == "dice":
            gap = item.test.difference
            text.append(
                f"{item.arm.dataset}, {item.arm.budget} labels: {item.arm.method} minus {item.reference}, mean Dice "
                f"{tables.with_interval(gap.mean, gap.low, gap.high, 'dice')}, p (Holm) {tables.p_text(item.p_holm)}."
            )
    return Section("Summary", text)


def _what_was_run(runs: Sequence[Run], data: dict[str, Any] | None) -> Section:
    section = Section("What was run", tables=[tables.runs_table(runs)])
    if data:
        section.tables.append(tables.data_table(data))
        source = [
            f"{key}: {value}" for key, value in data["provenance"].items() if isinstance(value, str | int | float)
        ]
        section.text += [f"Data {data['name']} ({data['modality']}). " + "; ".join(source)]
    section.tables += [table for table in (tables.stages_table(runs), tables.cost_table(runs)) if table]
    software = {
        f"Python {content['python']}, " + ", ".join(f"{name} {v}" for name, v in content.get("packages", {}).items())
        for run in runs
        for content in run.versions.values()
        if "python" in content
    }
    section.text += [f"Software: {line}." for line in sorted(software)]
    return section


def _results(
    dataset: str,
    runs: Sequence[Run],
    numbers: Sequence[Number],
    comparisons: Sequence[Comparison],
    reference: str | None,
    several: bool,
) -> Section:
    own = [number for number in numbers if number.dataset == dataset]
    pairs = [item for item in comparisons if item.arm.dataset == dataset]
    unit = distance_unit(runs, dataset)
    section = Section(f"Results: {dataset}" if several else "Results", tables=[tables.methods_table(own, unit)])
    section.tables += [tables.organ_table(own, metric, unit) for metric in ("dice", "hd95")]
    section.tables.append(tables.other_metrics_table(own, unit))
    if pairs:
        section.tables.append(tables.comparison_table(pairs, unit))
    elif reference:
        section.notes.append(f"No paired comparison: no other method shares a number of labels with {reference}.")
    section.notes += _warnings(own, pairs, [run for run in runs if any(arm.dataset == dataset for arm, _ in run.arms)])
    return section


def _warnings(numbers: Sequence[Number], pairs: Sequence[Comparison], runs: Sequence[Run]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for number in numbers:
        if number.note and (number.label, number.metric) == (OVERALL, "dice"):
            notes.setdefault(number.note, []).append(f"{number.method}, {number.budget} labels")
    every = len(dict.fromkeys((number.method, number.budget) for number in numbers))
    lines = [
        f"Mean Dice{'' if len(arms) == every else ' of ' + '; '.join(arms)}: {note}." for note, arms in notes.items()
    ]
    lines += [f"Paired tests: {note}." for note in sorted({item.test.note for item in pairs if item.test.note})]
    for organ, cases in _absent(runs).items():
        lines.append(f"{organ}: in neither truth nor prediction of up to {_count(cases, 'case')}, which have no score.")
    return lines


def _absent(runs: Sequence[Run]) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in runs:
        for organ, values in run.summary.get("labels", {}).items():
            if values.get("absent_cases") and organ != OVERALL:
                found[organ] = max(found.get(organ, 0), int(values["absent_cases"]))
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _render(template: str, path: Path, title: str, sections: Sequence[Section]) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=template.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    environment.filters["inline"] = lambda file: base64.b64encode(Path(file).read_bytes()).decode()
    environment.filters["anchor"] = lambda text: "".join(c if c.isalnum() else "-" for c in text.lower())
    page = environment.get_template(template).render(title=title, sections=sections, version=__version__)
    with atomic(path) as part:
        part.write_text(page, encoding="utf-8")
    return path
