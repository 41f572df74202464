"""What a shipped README and metadata say of the training: budget, teacher, synthetic share, versions, hashes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tskd.data.budget import split_training
from tskd.data.datalist import read
from tskd.errors import TskdError
from tskd.export.terms import first_weights
from tskd.files import sha256

NOT_EVALUATED = "It was not evaluated."
MIN_DICE = 0.1  # mean Dice of a model that has learned something


@dataclass(frozen=True)
class Record:
    """What is known of a model beside its weights.

    Args:
        dice: how well it did, in a sentence.
        mean_dice: over patients and structures; None without an evaluation.
        accuracy: lines of Markdown on its evaluation.
        training: lines of Markdown on its training.
        provenance: the same facts for metadata.json.
        first: published weights that its own network began with, and their licence.
        data_name: of the data set, "" for the name in its dataset.json.
        trial: a sentence that says that it is of toy length, "" where it is not.
    """

    dice: str = NOT_EVALUATED
    mean_dice: float | None = None
    accuracy: Sequence[str] = (NOT_EVALUATED,)
    training: Sequence[str] = ("- How it was trained is not recorded.",)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    first: str = ""
    data_name: str = ""
    trial: str = ""


def run_record(
    run: Path,
    model: Path,
    dataset_file: str | Path,
    accuracy: Sequence[str] = (),
    force: bool = False,
    flips: Sequence[str] = (),
) -> Record:
    """Return what a run's files say.

    Args:
        run: output_dir of a training, with versions.json.
        model: its weights.
        dataset_file: its dataset.json.
        accuracy: lines on its evaluation; by default what summary.json says, without intervals.
        force: also of a run that was not evaluated, or whose mean Dice is below `MIN_DICE`.
        flips: axes of which the bundle averages mirrored images; it is said if the evaluation had others.

    Raises:
        TskdError: such a run, without `force`.
    """
    versions = json.loads((run / "versions.json").read_text(encoding="utf-8"))
    mean, dice = _dice(run, force)
    images = versions.get("images") or _labelled(versions, dataset_file)
    settings = versions.get("settings", {})
    provenance = {
        "trained_weights_sha256": sha256(model),
        "dataset_sha256": versions.get("data", {}).get("sha256") or sha256(dataset_file),
        "config_sha256": versions.get("config_sha256"),
        "config": versions.get("config", []),
        "seed": settings.get("seed"),
        "teacher": versions.get("teacher"),
        "images": images,
        "python": versions.get("python"),
        "packages": versions.get("packages", {}),
    }
    if mean is not None and (evaluated := evaluated_flips(run)) != sorted(flips):
        remark = f"This was measured {_averaged(evaluated)}; the bundle predicts {_averaged(flips)}."
        dice, accuracy = f"{dice} {remark}", [*accuracy, "", remark] if accuracy else []
    lines = tuple(accuracy) or (dice,)
    training, first = _training(provenance, versions), first_weights(versions)
    return Record(dice, mean, lines if mean is not None else (dice,), training, provenance, first)


def as_trial(record: Record, run: Path) -> Record:
    """Return the record with a sentence that says for how few steps its model was trained, and that it is no use."""
    file = run / "train_log.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines() if file.is_file() else [])
    steps = max((int(row["step"]) for row in rows), default=0)
    length = f" of {steps} step{'s' * (steps != 1)}" if steps else ""
    sentence = f"Trained for a trial{length}: not for use."
    return replace(
        record, dice=f"**{sentence}** {record.dice}", trial=sentence,
        provenance={**record.provenance, "trial": True, "trial_steps": steps or None},
    )  # fmt: skip


def shipped_from(bundle: Path, model: Path) -> bool:
    """Return whether a shipped folder was made of a training's weights, or of these and trained further."""
    shipped, metadata = bundle / "models" / "model.pt", bundle / "configs" / "metadata.json"
    if not all(file.is_file() for file in (shipped, metadata, model)):
        return False
    provenance = json.loads(metadata.read_text(encoding="utf-8")).get("provenance", {})
    return provenance.get("trained_weights_sha256", sha256(shipped)) == sha256(model)


def evaluated_flips(run: Path) -> list[str]:
    """Return the axes of which a run's evaluation averaged mirrored images."""
    file = run / "evaluation" / "versions.json"
    made_with = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return sorted(made_with.get("settings", {}).get("flips") or [])


def _averaged(flips: Sequence[str]) -> str:
    return f"averaged over images mirrored along {' and '.join(sorted(flips))}" if flips else "without mirrored images"


def _labelled(versions: Mapping[str, Any], dataset_file: str | Path) -> dict[str, int]:
    """Return the labelled images and patients of a run whose versions.json does not say."""
    try:
        labelled, _ = split_training(
            read(dataset_file)["training"], versions["settings"].get("num_labelled"), dataset_file
        )
    except (TskdError, KeyError):
        return {}
    return {"labelled": len(labelled), "labelled_patients": len({entry["group"] for entry in labelled})}


def _training(provenance: Mapping[str, Any], versions: Mapping[str, Any]) -> list[str]:
    images = provenance["images"]
    budget = "- Labelled images: not recorded."
    if "labelled" in images:
        labelled, patients = images["labelled"], images["labelled_patients"]
        budget = f"- Budget: {_count(labelled, 'labelled image')} of {_count(patients, 'patient')}."
    shares = "- Unlabelled and synthetic images: not recorded."
    if "synthetic" in images:
        total = sum(images[part] for part in ("labelled", "unlabelled", "synthetic"))
        share = images["synthetic"] / total if total else 0
        shares = (
            f"- Beside {'them' if images['labelled'] != 1 else 'it'} {images['unlabelled']} unlabelled and "
            f"{_count(images['synthetic'], 'synthetic image')} "
            f"({share:.0%} of all are synthetic)."
        )
    teacher = {None: "not recorded", "": "none"}.get(provenance["teacher"], provenance["teacher"])
    seed = "not recorded" if provenance["seed"] is None else provenance["seed"]
    configs = ", ".join(f"`{name}`" for name in provenance["config"]) or "not recorded"
    return [
        budget,
        shares,
        f"- Teacher: {teacher}. Configuration: {configs}; seed {seed}.",
        versions_line(versions),
        f"- SHA-256 of the training's weights `{provenance['trained_weights_sha256']}`, of its dataset.json "
        f"`{provenance['dataset_sha256']}`, of its configuration `{provenance['config_sha256'] or 'not recorded'}`.",
    ]


def versions_line(versions: Mapping[str, Any]) -> str:
    """Return a line on the software and the processor of a run, from its versions.json."""
    packages = ", ".join(f"{name} {number}" for name, number in versions.get("packages", {}).items()) or "not recorded"
    device = f", on {versions['device']}" if "device" in versions else ""
    python = f"Python {versions['python']}, " if "python" in versions else ""
    return f"- Versions of the training: {python}{packages}{device}."


def _dice(run: Path, force: bool) -> tuple[float | None, str]:
    """Return a run's mean Dice, and how well it did on its evaluation, in a sentence."""
    file = run / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    mean = summary.get("mean_dice")
    if mean is None and not force:
        raise TskdError(
            f"{file}: expected the evaluation of the model, found none. Evaluate it: tskd evaluate --run {run}, or "
            "ship it unevaluated with --force"
        )
    if mean is not None and mean < MIN_DICE and not force:
        raise TskdError(
            f"{file}: expected a model that has learned its task, found a mean Dice of {mean:.3f}. Train it longer, or "
            "with more labels; --force ships it all the same"
        )
    if mean is None:
        return None, NOT_EVALUATED
    by_organ = ", ".join(
        f"{name} {values['dice']['mean']:.3f}" for name, values in summary.get("labels", {}).items() if "dice" in values
    )
    patients = summary.get("patients", summary.get("cases"))
    return mean, f"Mean Dice {mean:.3f} on {_count(patients, 'patient')} it was evaluated on ({by_organ})."


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
