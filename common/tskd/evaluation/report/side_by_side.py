"""The same cases under each method, side by side, one colour a structure."""

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
from tskd.evaluation.report.tables import shown
from tskd.evaluation.rows import OVERALL, MetricRow, organs, patient_values

WIDTH = 2.3  # inches of a picture


def comparison_pictures(folder: Path, runs: Sequence[Run], reference: str | None) -> list[Picture]:
    """Best, median and worst case of the reference method, under all methods of its dataset and largest budget.

    Empty where fewer than two methods have predictions of the same cases.
    """
    rows, files = _gather(runs)
    pictures = []
    for dataset in dict.fromkeys(arm.dataset for arm in rows):
        own = [arm for arm in rows if arm.dataset == dataset]
        budget = max((arm.budget for arm in own), key=budget_number)
        own = [arm for arm in own if arm.budget == budget]
        base = next((arm for arm in own if arm.method == reference), own[0])
        for case in choose_cases(rows[base]) if len(own) > 1 else ():
            shown_arms = {arm: files[arm].get(case.case, {}) for arm in own}
            there = {arm: f for arm, f in shown_arms.items() if all(Path(f.get(k) or "?").is_file() for k in KEYS)}
            if len(there) < 2:
                continue
            scores = {arm: _dice(rows[arm], case.case) for arm in there}
            names = _names(runs, base) or organs(rows[base])
            figure, where = _figure(there, scores, names)
            words = ", ".join(f"{arm.method} {_text(scores[arm])}" for arm in there)
            about = ", ".join(filter(None, [f"case {case.case}", f"patient {case.group}", where, f"{budget} labels"]))
            name = "".join(c if c.isalnum() else "_" for c in f"same_{dataset}_{case.rank}".lower())
            title = f"{case.rank} case of {base.method}"
            alt = f"Truth and predictions of each method, one colour a structure: {about}. Dice: {words}."
            pictures.append(save(figure, folder, name, title, alt, f"{about}. Dice: {words}."))
    return pictures


KEYS = ("image", "label", "prediction")


def _gather(runs: Sequence[Run]) -> tuple[dict[Arm, list[MetricRow]], dict[Arm, dict[str, Mapping[str, Any]]]]:
    """Rows of each arm's first seed, and its files by case."""
    rows: dict[Arm, list[MetricRow]] = {}
    files: dict[Arm, dict[str, Mapping[str, Any]]] = {}
    seeds: dict[Arm, str] = {}
    for run in runs:
        for (arm, seed), own in run.arms.items():
            if seeds.setdefault(arm, seed) == seed:
                rows.setdefault(arm, []).extend(own)
                files.setdefault(arm, {}).update(run.cases)
    return rows, files


def _names(runs: Sequence[Run], arm: Arm) -> list[str]:
    """Structures by class index, as summary.json lists them."""
    summaries = [run.summary for run in runs if any(arm == own for own, _ in run.arms)]
    return [name for name in summaries[0].get("labels", {}) if name != OVERALL] if summaries else []


def _dice(rows: Sequence[MetricRow], case: str) -> float | None:
    own = [row for row in rows if row.case == case]
    values = patient_values(own, "dice") if own else {}
    return float(np.mean(list(values.values()))) if values else None


def _text(score: float | None) -> str:
    return "–" if score is None else shown(score, "dice")


def _figure(
    files: Mapping[Arm, Mapping[str, Any]], scores: Mapping[Arm, float | None], names: Sequence[str]
) -> tuple[Figure, str]:
    """The truth and each method's prediction on the slice where the truth is largest."""
    first = next(iter(files.values()))
    (image, height), (truth, _) = load_upright(first["image"]), load_upright(first["label"])
    where, k = "", None
    if image.ndim == 4:
        areas = ((truth[0] > 0) & (truth[0] != 255)).sum(axis=(0, 1))
        k = int(areas.argmax()) if areas.any() else image.shape[3] // 2
        where = f"slice {k + 1} of {image.shape[3]}"
    masks = {"truth": truth} | {
        f"{arm.method}: {_text(scores[arm])}": load_upright(own["prediction"])[0] for arm, own in files.items()
    }
    picture = _plane(image, k)
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    tall = WIDTH * float(np.clip(picture.shape[0] / picture.shape[1] * height, 0.4, 2.0))
    figure = Figure(figsize=(WIDTH * len(masks), tall + 0.7), layout="constrained")
    values = sorted({int(v) for mask in masks.values() for v in np.unique(_plane(mask, k)) if 0 < v != 255})
    for number, (title, mask) in enumerate(masks.items()):
        ax = figure.add_subplot(1, len(masks), number + 1)
        ax.imshow(blend(picture, _plane(mask, k)[..., 0]), aspect=height, interpolation="nearest")
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    label = {value: names[value - 1] if value <= len(names) else f"class {value}" for value in values}
    handles = [Patch(color=colour(value), label=label[value]) for value in values]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9
        )
    return figure, where


def _plane(array: np.ndarray, k: int | None) -> np.ndarray:
    """[C, X, Y(, Z)] -> rows x columns x C."""
    return (array if k is None else array[..., k]).transpose(2, 1, 0)
