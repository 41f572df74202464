"""Draw the same cases under each method, side by side, one colour a structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tskd.data.tint import blend, colour
from tskd.evaluation.report.figures import Picture, save
from tskd.evaluation.report.overlays import choose_cases, load_upright
from tskd.evaluation.report.runs import Arm, Run, budget_number
from tskd.evaluation.report.tables import format_metric
from tskd.evaluation.rows import OVERALL, MetricRow, organs, patient_values

KEYS = ("image", "label", "prediction")
WIDTH = 2.3  # inches of a picture


def comparison_pictures(folder: Path, runs: Sequence[Run], reference: str | None) -> list[Picture]:
    """Draw best, median and worst case of the reference method under all methods of its dataset and largest budget.

    Empty where fewer than two methods have predictions of the same cases.
    """
    rows, files = _rows_and_files(runs)
    pictures = []
    for dataset in dict.fromkeys(arm.dataset for arm in rows):
        dataset_arms = [arm for arm in rows if arm.dataset == dataset]
        budget = max((arm.budget for arm in dataset_arms), key=budget_number)
        dataset_arms = [arm for arm in dataset_arms if arm.budget == budget]
        reference_arm = next((arm for arm in dataset_arms if arm.method == reference), dataset_arms[0])
        for case in choose_cases(rows[reference_arm]) if len(dataset_arms) > 1 else ():
            shown_arms = {arm: files[arm].get(case.case, {}) for arm in dataset_arms}
            available = {arm: f for arm, f in shown_arms.items() if all(Path(f.get(k) or "?").is_file() for k in KEYS)}
            if len(available) < 2:
                continue
            scores = {arm: _dice(rows[arm], case.case) for arm in available}
            names = _structure_names(runs, reference_arm) or organs(rows[reference_arm])
            figure, slice_text = _comparison_figure(available, scores, names)
            dice_list = ", ".join(f"{arm.method} {_text(scores[arm])}" for arm in available)
            case_text = ", ".join(
                filter(None, [f"case {case.case}", f"patient {case.group}", slice_text, f"{budget} labels"])
            )
            name = "".join(c if c.isalnum() else "_" for c in f"same_{dataset}_{case.rank}".lower())
            title = f"{case.rank} case of {reference_arm.method}"
            alt = f"Truth and predictions of each method, one colour a structure: {case_text}. Dice: {dice_list}."
            pictures.append(save(figure, folder, name, title, alt, f"{case_text}. Dice: {dice_list}."))
    return pictures


def _rows_and_files(runs: Sequence[Run]) -> tuple[dict[Arm, list[MetricRow]], dict[Arm, dict[str, Mapping[str, Any]]]]:
    """Return the rows of each arm's first seed, and its files by case."""
    rows: dict[Arm, list[MetricRow]] = {}
    files: dict[Arm, dict[str, Mapping[str, Any]]] = {}
    seeds: dict[Arm, str] = {}
    for run in runs:
        for (arm, seed), arm_rows in run.arms.items():
            if seeds.setdefault(arm, seed) == seed:
                rows.setdefault(arm, []).extend(arm_rows)
                files.setdefault(arm, {}).update(run.cases)
    return rows, files


def _structure_names(runs: Sequence[Run], arm: Arm) -> list[str]:
    """Return the structures by class index, as summary.json lists them."""
    summaries = [run.summary for run in runs if any(arm == run_arm for run_arm, _ in run.arms)]
    return [name for name in summaries[0].get("labels", {}) if name != OVERALL] if summaries else []


def _dice(rows: Sequence[MetricRow], case: str) -> float | None:
    case_rows = [row for row in rows if row.case == case]
    values = patient_values(case_rows, "dice") if case_rows else {}
    return float(np.mean(list(values.values()))) if values else None


def _text(score: float | None) -> str:
    return "–" if score is None else format_metric(score, "dice")


def _comparison_figure(
    files: Mapping[Arm, Mapping[str, Any]], scores: Mapping[Arm, float | None], names: Sequence[str]
) -> tuple[Figure, str]:
    """Draw the truth and each method's prediction on the slice where the truth is largest."""
    first = next(iter(files.values()))
    (image, height), (truth, _) = load_upright(first["image"]), load_upright(first["label"])
    slice_text, k = "", None
    if image.ndim == 4:
        areas = ((truth[0] > 0) & (truth[0] != 255)).sum(axis=(0, 1))
        k = int(areas.argmax()) if areas.any() else image.shape[3] // 2
        slice_text = f"slice {k + 1} of {image.shape[3]}"
    masks = {"truth": truth} | {
        f"{arm.method}: {_text(scores[arm])}": load_upright(case_files["prediction"])[0]
        for arm, case_files in files.items()
    }
    picture = _slice_rows_first(image, k)
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    panel_height = WIDTH * float(np.clip(picture.shape[0] / picture.shape[1] * height, 0.4, 2.0))
    figure = Figure(figsize=(WIDTH * len(masks), panel_height + 0.7), layout="constrained")
    values = sorted({int(v) for mask in masks.values() for v in np.unique(_slice_rows_first(mask, k)) if 0 < v != 255})
    for number, (title, mask) in enumerate(masks.items()):
        ax = figure.add_subplot(1, len(masks), number + 1)
        ax.imshow(blend(picture, _slice_rows_first(mask, k)[..., 0]), aspect=height, interpolation="nearest")
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    label = {value: names[value - 1] if value <= len(names) else f"class {value}" for value in values}
    handles = [Patch(color=colour(value), label=label[value]) for value in values]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9
        )
    return figure, slice_text


def _slice_rows_first(array: np.ndarray, k: int | None) -> np.ndarray:
    """Return [C, X, Y(, Z)] as rows x columns x C; `k` is the slice of a volume."""
    return (array if k is None else array[..., k]).transpose(2, 1, 0)
