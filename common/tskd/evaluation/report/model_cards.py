"""Write a model card of each method, from what its runs recorded (after Mitchell et al., arXiv 1810.03993)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tskd.evaluation.report.runs import Run, distance_unit
from tskd.evaluation.report.summary import Number
from tskd.evaluation.report.tables import count, format_metric, metric_heading, with_interval
from tskd.evaluation.rows import OVERALL

FEW_PATIENTS = 20


@dataclass(frozen=True)
class Card:
    """A method with its items, each a heading and lines of text."""

    method: str
    items: Sequence[tuple[str, Sequence[str]]]

    @property
    def title(self) -> str:
        """Heading of the card."""
        return f"Model card: {self.method}"

    @property
    def file(self) -> str:
        """Name of the card's own file."""
        return f"model_card_{''.join(c if c.isalnum() or c in '-_' else '_' for c in self.method)}.md"


def model_cards(runs: Sequence[Run], numbers: Sequence[Number], data: Mapping[str, Any] | None) -> list[Card]:
    """Return one card a method; what no run recorded is left out, or said to be unknown where a reader must know it.

    Args:
        runs: run folders of all methods.
        numbers: numbers of all methods.
        data: content of dataset.json, if given.
    """
    cards = []
    for method in dict.fromkeys(number.method for number in numbers):
        method_runs = [run for run in runs if any(arm.method == method for arm, _ in run.arms)]
        method_numbers = [number for number in numbers if number.method == method]
        known = data if data and any(number.dataset == data["name"] for number in method_numbers) else None
        items = [
            ("Model", _model(method_runs)),
            (
                "Intended use",
                [
                    "Research on segmentation with few labelled images.",
                    "Not a medical device, and not for clinical use: no diagnosis or treatment may depend on it.",
                ],
            ),
            ("Training", _training(method_runs, method)),
            ("Data", _data(method_numbers, method_runs, known)),
            ("Evaluation", _evaluation(method_numbers, method_runs)),
            ("Limitations", _limitations(method_numbers, known)),
            ("Licences", _licences(method_runs, known)),
        ]
        cards.append(Card(method, [(name, lines) for name, lines in items if lines]))
    return cards


def _settings(runs: Sequence[Run], key: str) -> list[str]:
    """Return the different values of a setting in all stages of the runs, in order."""
    values = (content.get("settings", {}).get(key) for run in runs for content in run.versions.values())
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def _model(runs: Sequence[Run]) -> list[str]:
    network, vfm = _settings(runs, "network"), _settings(runs, "vfm")
    architecture = ", ".join(network) + (f" ({', '.join(vfm)})" if network and vfm else ", ".join(vfm))
    lines = [f"Architecture: {architecture or 'not recorded'}."]
    sizes = _settings(runs, "parameters") or [str(r.profile["parameters"]) for r in runs if "parameters" in r.profile]
    if sizes:
        lines.append(f"Parameters: {', '.join(dict.fromkeys(f'{int(size) / 1e6:.2f}' for size in sizes))} million.")
    if size := _settings(runs, "image_size"):
        channels = _settings(runs, "in_channels")
        of = f", {count(int(channels[0]), 'channel')}" if len(channels) == 1 else ""
        lines.append(f"Input: 2-D images or slices, resized to {', '.join(size)} px{of}.")
    return lines


def _training(runs: Sequence[Run], method: str) -> list[str]:
    budgets = list(dict.fromkeys(arm.budget for run in runs for arm, _ in run.arms if arm.method == method))
    seeds = list(dict.fromkeys(seed for run in runs for arm, seed in run.arms if arm.method == method))
    lines = [f"Labelled training images: {', '.join(budgets)}. Seeds: {', '.join(seeds)}."]
    stages = [
        f"{', '.join(content['config'])} (config hash {str(content.get('config_sha256') or 'not recorded')[:12]})"
        for run in runs
        for content in run.versions.values()
        if content.get("config") and "evaluate.json" not in content["config"]
    ]
    lines += [f"Configuration: {line}." for line in dict.fromkeys(stages)]
    if start := _settings(runs, "init_weights"):
        lines.append(f"Started from: {', '.join(start)}.")
    return lines


def _data(numbers: Sequence[Number], runs: Sequence[Run], data: Mapping[str, Any] | None) -> list[str]:
    organs = dict.fromkeys(number.label for number in numbers if number.label != OVERALL)
    lines = [f"Datasets: {', '.join(dict.fromkeys(n.dataset for n in numbers))}. Organs: {', '.join(organs)}."]
    if data:
        sizes = [
            f"{name} {len(data[name])} of {count(len({entry['group'] for entry in data[name]}), 'patient')}"
            for name in ("training", "unlabelled", "validation", "test")
            if data.get(name)
        ]
        source = data["provenance"].get("source", "not recorded")
        lines.append(f"{data['name']}: {data['modality']}; source: {source}. Images or volumes: {', '.join(sizes)}.")
    if synthetic := [name for name in _settings(runs, "transfer_files") if "synthetic" in name]:
        lines.append(f"Synthetic images were in the transfer set: {', '.join(synthetic)}.")
    return lines


def _evaluation(numbers: Sequence[Number], runs: Sequence[Run]) -> list[str]:
    lines = []
    for dice in (n for n in numbers if (n.label, n.metric) == (OVERALL, "dice")):
        unit = distance_unit(runs, dice.dataset)
        same = [n for n in numbers if (n.dataset, n.budget) == (dice.dataset, dice.budget)]
        organs = [
            f"{n.label} {format_metric(n.mean, 'dice')}" for n in same if n.metric == "dice" and n.label != OVERALL
        ]
        lines.append(
            f"{dice.dataset}, {dice.budget} labels, {count(dice.patients, 'patient')}, {count(dice.seeds, 'seed')}: "
            f"mean Dice {with_interval(dice.mean, dice.low, dice.high, 'dice')}, "
            f"median {format_metric(dice.median, 'dice')}, "
            f"worst patient {format_metric(dice.worst, 'dice')}; by organ {', '.join(organs)}."
        )
        for n in (n for n in same if n.label == OVERALL and n.metric in ("hd95", "nsd", "ece_foreground")):
            score = with_interval(n.mean, n.low, n.high, n.metric)
            lines.append(f"{dice.dataset}, {dice.budget} labels: {metric_heading(n.metric, unit)}: {score}.")
    return lines


def _limitations(numbers: Sequence[Number], data: Mapping[str, Any] | None) -> list[str]:
    dice = [n for n in numbers if (n.label, n.metric) == (OVERALL, "dice")]
    fewest, seeds = min(n.patients for n in dice), min(n.seeds for n in dice)
    lines = []
    if fewest < FEW_PATIENTS:
        lines.append(f"Only {count(fewest, 'patient')} in the evaluation: the numbers may not hold for others.")
    if seeds == 1:
        lines.append("One training (seed): how much the result depends on chance is not known.")
    worst = min(dice, key=lambda n: n.worst)
    lines.append(
        f"The mean hides failures: the worst patient has a Dice of {format_metric(worst.worst, 'dice')} "
        f"({worst.dataset}, patient {worst.worst_patient}, {worst.budget} labels)."
    )
    data_source = f"{data['modality']} images of this source" if data else "the datasets named here"
    lines.append(f"Measured on {data_source} only; other scanners, protocols, diseases and ages were not tested.")
    return lines


def _licences(runs: Sequence[Run], data: Mapping[str, Any] | None) -> list[str]:
    lines = []
    if data:
        lines.append(f"Data {data['name']}: {data['provenance'].get('licence', 'not recorded')}.")
    if vfm := _settings(runs, "vfm"):
        lines.append(f"Weights of {', '.join(vfm)}: their owner's licence; read it before passing the model on.")
    return lines or ["Not recorded: give --dataset-file for the licence of the data."]
