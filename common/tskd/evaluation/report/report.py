"""The report of one or more runs: report.html (one file), report.md, model cards, figures/ and the numbers as CSV."""

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2

from tskd import __version__
from tskd.data import datalist
from tskd.errors import TskdError
from tskd.evaluation.reliability import pool, write_pooled
from tskd.evaluation.report import sections
from tskd.evaluation.report.model_cards import model_cards
from tskd.evaluation.report.pictures import (
    calibration_pictures,
    case_pictures,
    curve_pictures,
    result_pictures,
    synthetic_pictures,
)
from tskd.evaluation.report.runs import collect, load_runs, run_order
from tskd.evaluation.report.search_table import search_table
from tskd.evaluation.report.sections import Section
from tskd.evaluation.report.side_by_side import comparison_pictures
from tskd.evaluation.report.summary import all_numbers, choose_reference, compare, write_numbers
from tskd.evaluation.report.synthetic_images import memorisation_picture, memorisation_table
from tskd.evaluation.report.verdict import About, methods_table, patients_table, stages_table, verdict
from tskd.files import atomic, write_json


def write_report(
    runs: Sequence[str | Path],
    output: str | Path,
    reference: str | None = None,
    dataset: str | Path | None = None,
    synthetic: str | Path | None = None,
    search: str | Path | None = None,
    title: str = "Segmentation report",
    about: About | None = None,
) -> Path:
    """Write the report of evaluated runs.

    Args:
        runs: run folders with metrics.csv; what else they hold (calibration.csv, versions.json, train_log.csv,
            cases.json with predictions, profile.json) is shown too.
        output: folder for report.html, report.md, model_card_METHOD.md, numbers.csv, calibration.csv and figures/.
        reference: method that the others are compared with; None for the first method.
        dataset: path of dataset.json, for the sizes of the split and real images beside the synthetic ones.
        synthetic: folder of synthetic images with its dataset.json, and what the memorisation
            check wrote there (memorisation.csv, .json and .png), if anything.
        search: folder of a search of settings with its trials.csv.
        title: heading of the report.
        about: the study that the runs are of: what each method is, and the time of every stage.

    Returns:
        Path of report.html.

    Raises:
        TskdError: a folder without metrics.csv, runs without any Dice, the same result twice, an unknown reference, or
            an unreadable file.
    """
    output = Path(output)
    figures = output / "figures"
    loaded = load_runs(runs)
    arms = collect(loaded)
    loaded.sort(key=lambda run: run_order(run, arms))
    numbers = all_numbers(arms)
    scored = {(n.dataset, n.method, n.budget) for n in numbers if n.metric == "dice"}
    if unscored := [arm for arm in arms if (arm.dataset, arm.method, arm.budget) not in scored]:
        names = ", ".join(f"{arm.method} ({arm.dataset}, {arm.budget} labels)" for arm in unscored)
        raise TskdError(
            f"{names}: expected Dice in metrics.csv, found none: no case of it has a structure. Leave it out."
        )
    methods = list(dict.fromkeys(arm.method for arm in arms))
    chosen = choose_reference(arms, reference)
    comparisons = compare(arms, chosen) if chosen else []
    pooled = pool(loaded)
    data = datalist.read(dataset) if dataset else None
    trials = search_table(Path(search)) if search else None

    verdict_lines = verdict(numbers, comparisons, about)
    parts = [Section("Verdict", verdict_lines), sections.summary(numbers, comparisons)]
    if about:
        parts[0].tables = [table for table in (methods_table(about), stages_table(about)) if table]
    datasets = list(dict.fromkeys(arm.dataset for arm in arms))
    for name in datasets:
        dataset_arms = {arm: seeds for arm, seeds in arms.items() if arm.dataset == name}
        part = sections.results(name, loaded, numbers, comparisons, chosen, pooled, several=len(datasets) > 1)
        part.tables.append(patients_table(dataset_arms))
        part.pictures = result_pictures(
            figures, dataset_arms, [number for number in numbers if number.dataset == name], methods
        )
        part.pictures += calibration_pictures(
            figures, {arm: pooled[arm] for arm in dataset_arms if arm in pooled}, methods
        )
        parts.append(part)
    comparisons_drawn = comparison_pictures(figures, loaded, chosen)
    pictures, notes = (comparisons_drawn, []) if comparisons_drawn else case_pictures(figures, loaded)
    volumes = any("slice" in picture.caption for picture in pictures)
    text = ["Slice with the largest true area; the patient's right is at the left. Scores are of the whole volume."]
    heading = "The same cases under each method" if comparisons_drawn else "Best, median and worst case"
    parts.append(Section(heading, text if volumes else [], pictures=pictures, notes=notes))
    if synthetic:
        pictures = synthetic_pictures(figures, Path(synthetic), Path(dataset) if dataset else None)
        sheet = memorisation_picture(Path(synthetic), figures)
        pictures += [sheet] if sheet else []
        table = memorisation_table(Path(synthetic))
        parts.append(Section("Synthetic images", tables=[table] if table else [], pictures=pictures))
    if trials:
        parts.append(Section("Search of settings", tables=[trials]))
    pictures, notes = curve_pictures(figures, loaded, methods)
    parts.append(Section("Training curves", pictures=pictures, notes=notes))
    parts.append(sections.what_was_run(loaded, data))
    cards = model_cards(loaded, numbers, data)
    parts.append(Section("Model cards", cards=cards))

    write_numbers(output / "numbers.csv", numbers)
    write_json(output / "verdict.json", {"verdict": verdict_lines})
    if pooled:
        write_pooled(output / "calibration.csv", pooled)
    for card in cards:
        _render("card.md.j2", output / card.file, card=card)
    filled = [part for part in parts if not part.empty]
    _render("report.md.j2", output / "report.md", title=title, sections=filled)
    return _render("report.html.j2", output / "report.html", title=title, sections=filled)


def _render(template: str, path: Path, **content: object) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=template.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    environment.filters["inline"] = lambda file: base64.b64encode(Path(file).read_bytes()).decode()
    environment.filters["anchor"] = lambda text: "".join(c if c.isalnum() else "-" for c in text.lower())
    page = environment.get_template(template).render(version=__version__, **content)
    with atomic(path) as draft:
        draft.write_text(page, encoding="utf-8")
    return path
