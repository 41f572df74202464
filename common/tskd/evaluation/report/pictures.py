"""The report's pictures: which are drawn, with their titles, captions and words for those who cannot see them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tskd.data import datalist
from tskd.errors import TskdError
from tskd.evaluation.calibration import calibration_error
from tskd.evaluation.reliability import Pooled
from tskd.evaluation.report import figures, overlays
from tskd.evaluation.report.figures import Picture, save
from tskd.evaluation.report.runs import Arm, Arms, Run, budget_number
from tskd.evaluation.report.summary import Number
from tskd.evaluation.report.tables import format_metric
from tskd.evaluation.rows import OVERALL


def result_pictures(folder: Path, arms: Arms, numbers: Sequence[Number], methods: Sequence[str]) -> list[Picture]:
    """Draw the distribution of Dice, paired lines and Dice against budget, for the arms of one dataset."""
    dataset = next(iter(arms)).dataset
    name = _file_name(dataset)
    dice = [number for number in numbers if (number.label, number.metric) == (OVERALL, "dice")]
    means = "; ".join(f"{n.method} with {n.budget} labels {format_metric(n.mean, 'dice')}" for n in dice)
    pictures = [
        save(
            figures.dice_boxes(arms, methods),
            folder,
            f"{name}_dice_by_organ",
            "Dice of each patient",
            f"Box plots of the Dice of each patient by organ and method. Mean over all organs: {means}.",
            "A point is a patient (mean over cases and seeds). Box: quartiles and median. Whiskers: the furthest value "
            "within 1.5 box heights.",
        )
    ]
    if max(sum(arm.budget == candidate.budget for candidate in arms) for arm in arms) > 1:
        pictures.append(
            save(
                figures.paired_lines(arms, methods),
                folder,
                f"{name}_paired",
                "The same patients under each method",
                f"Lines that join the mean Dice of each patient from method to method. Means: {means}.",
                "A grey line is a patient; the black line joins the means.",
            )
        )
    if len({budget_number(n.budget) for n in dice if np.isfinite(budget_number(n.budget))}) > 1:
        pictures.append(
            save(
                figures.dice_by_budget(dice, methods),
                folder,
                f"{name}_budget",
                "Dice against the number of labels",
                f"Mean Dice of each method against the number of labelled training images: {means}.",
                "Bars: 95% intervals. The horizontal axis is not to scale.",
            )
        )
    return pictures


def curve_pictures(folder: Path, runs: Sequence[Run], methods: Sequence[str]) -> tuple[list[Picture], list[str]]:
    """Draw the training curves of all runs that have them; also return notes."""
    logged = [run for run in runs if run.curves]
    if not logged:
        return [], []
    figure, omitted = figures.training_curves(logged, methods)
    names = ", ".join(dict.fromkeys(curve.name for run in logged for curve in run.curves))
    alt = f"Logged values over training steps: {names}."
    caption = "Mean over each epoch, from train_log.csv; one line a run."
    picture = save(figure, folder, "training_curves", "Logged during training", alt, caption)
    return [picture], [f"Not drawn, but in train_log.csv: {', '.join(omitted)}."] if omitted else []


def calibration_pictures(folder: Path, pooled: Pooled, methods: Sequence[str]) -> list[Picture]:
    """Draw reliability diagram and error against entropy, for the arms of one dataset; a figure for each budget."""
    pictures = []
    for budget in dict.fromkeys(arm.budget for arm in pooled):
        budget_bins = {arm: bins for arm, bins in pooled.items() if arm.budget == budget}
        dataset = next(iter(budget_bins)).dataset
        errors = [
            (arm.method, calibration_error(bins["foreground", "confidence"])) for arm, bins in budget_bins.items()
        ]
        gaps = ", ".join(f"{method} {error:.3f}" for method, error in errors if error is not None)
        pictures.append(
            save(
                figures.reliability_diagram(budget_bins, methods),
                folder,
                _file_name(f"{dataset}_{budget}_calibration"),
                f"Calibration and uncertainty, {budget} labels",
                "Left: share of right pixels against confidence. Right: share of wrong pixels against entropy. Above: "
                f"foreground, below: all pixels. Calibration error in the foreground: {gaps}.",
                "A point is one of 15 bins, the larger the more pixels; all cases together. Grey line: confidence "
                "equals accuracy; below it the network is too sure. Entropy: 0 certain, 1 all classes alike.",
            )
        )
    return pictures


def case_pictures(folder: Path, runs: Sequence[Run]) -> tuple[list[Picture], list[str]]:
    """Draw best, median and worst case of each method at its largest budget (first seed); also note what is missing."""
    shown_arms: dict[tuple[str, str], tuple[Arm, str]] = {}
    for arm, seed in (key for run in runs if any(c.get("prediction") for c in run.cases.values()) for key in run.arms):
        previous = shown_arms.setdefault((arm.dataset, arm.method), (arm, seed))
        if budget_number(arm.budget) > budget_number(previous[0].budget):
            shown_arms[arm.dataset, arm.method] = arm, seed
    pictures, notes = [], []
    for arm, seed in shown_arms.values():
        arm_runs = [run for run in runs if (arm, seed) in run.arms]  # several where the folds have folders of their own
        cases = {name: files for run in arm_runs for name, files in run.cases.items()}
        for case in overlays.choose_cases([row for run in arm_runs for row in run.arms[arm, seed]]):
            files = cases.get(case.case, {})
            missing = [key for key in ("image", "label", "prediction") if not Path(files.get(key) or "?").is_file()]
            title = f"{case.rank}: {arm.method}"
            if missing:
                notes.append(f"{title}, case {case.case}: no picture, {' and '.join(missing)} not found.")
                continue
            figure, slice_text = overlays.overlay(files)
            parts = [
                f"{arm.budget} labels",
                f"seed {seed}",
                f"patient {case.group}",
                f"case {case.case}",
                slice_text,
                f"Dice {format_metric(case.dice, 'dice')}",
            ]
            caption = ", ".join(filter(None, parts))
            name = f"case_{arm.dataset}_{arm.method}_{arm.budget}_{case.rank}".lower()
            alt = f"{title}. Contours of the truth (blue, solid) and the prediction (orange, dashed): {caption}."
            pictures.append(save(figure, folder, _file_name(name), title, alt, caption, small=True))
    return pictures, notes


def synthetic_pictures(folder: Path, synthetic: Path, dataset: Path | None, count: int = 16) -> list[Picture]:
    """Draw synthetic images, and real training images beside them where a dataset is given."""
    pictures = []
    sources = [("Synthetic", synthetic / "dataset.json"), *([("Real", dataset)] if dataset else [])]
    for kind, file in reversed(sources):
        images = [entry["image"] for entry in datalist.entries(file, "transfer")]
        missing = [image for image in images if not Path(image).is_file()]
        if missing:
            raise TskdError(f"{file}: expected the image {missing[0]}, found no such file. Make the images again.")
        chosen = np.random.default_rng(0).permutation(len(images))[:count]
        grid = overlays.image_grid([images[index] for index in chosen])
        alt = f"{len(chosen)} {kind.lower()} images drawn at random."
        caption = f"{len(chosen)} of {len(images)}, drawn at random."
        pictures.append(save(grid, folder, f"{kind.lower()}_samples", f"{kind} images", alt, caption, small=True))
    return pictures


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text)
