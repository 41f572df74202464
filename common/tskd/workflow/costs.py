"""The seconds that each step of a study will take on this machine, from a few measured steps of its trainings."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.files import write_json
from tskd.workflow import warm
from tskd.workflow.commands import DDPM, STUDENT, config_files, merged_config
from tskd.workflow.steps import Step
from tskd.workflow.study import Study

TRAININGS = ("teacher", "ddpm", "distil", "rival", "finetune")
FIXED = {
    "prepare": 10.0,
    "bundle": 20.0,
    "transfer": 2.0,
    "weights": 30.0,
    "profile": 15.0,
    "report": 10.0,
}  # seconds, roughly
START = 5.0  # seconds of any run of a bundle: building, reading, writing
PATHS = (
    "dataset_dir",
    "output_dir",
    "model_dir",
    "soft_labels",
    "transfer_files",
    "teacher_model",
    "init_weights",
    "teacher_weights",
    "teacher_bundle",
)


class Costs:
    """Measured trainings, and what follows from them for the other steps.

    Args:
        study: the study, whose data sets are prepared.
        folder: where the measurement's files are written.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.measured: dict[str, dict[str, Any]] = {}

    def measure(self, environment: Mapping[str, str], steps: Iterable[Step]) -> list[str]:
        """Time the trainings among `steps`, each kind once; return problems that stop them, in the study's words."""
        kinds: dict[str, dict[str, Any]] = {}
        where: dict[str, str] = {}
        for step in steps:
            if step.rule in TRAININGS and step.configs:
                training = self._kind(step)
                kinds.setdefault(_key(training), training)
                where.setdefault(_key(training), study_key(self.study, step))
        if not kinds:
            return []
        request, answer = (self.folder / name for name in (".measure.json", ".measured.json"))
        write_json(request, list(kinds.values()))
        threads = str(self.study.config.get("threads", 2))
        with (self.folder / "measure.log").open("w") as log:
            process = warm.start(
                ["tskd.workflow.measure", str(request), str(answer)], log,
                {**os.environ, **environment, "OMP_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
            status = process.wait()
        if status != 0:
            raise TskdError(f"the trainings could not be measured (status {status}). log: {self.folder}/measure.log")
        results = json.loads(answer.read_text(encoding="utf-8"))
        for file in (request, answer):
            file.unlink()
        self.measured = dict(zip(kinds, results, strict=True))
        return [
            f"{where[key]}: {measured['problem']}" for key, measured in self.measured.items() if "problem" in measured
        ]

    def seconds(self, step: Step) -> float | None:
        """Return what a step is expected to take; None where that was not measured."""
        if step.rule in FIXED:
            return FIXED[step.rule]
        training = step if step.rule in TRAININGS else _training(step)
        measured = self._measurement(training) if training else None
        if measured is None or "step" not in measured or training is None:
            return None
        settings, data = _settings(step), self._data(step)
        slices, tests = _slices(data["validation"]), _slices(data["test"])
        if step.rule in TRAININGS:
            epochs = settings["max_epochs"]
            rounds = epochs / settings.get("val_interval", epochs) if step.rule != "ddpm" else 0
            steps = epochs * settings["iterations_per_epoch"]
            return START + steps * measured["step"] + rounds * slices * measured["forward"]
        if step.rule == "soft_labels":
            images = len(data["training"]) + len(data["unlabelled"])
            synthetic = self.study.config.get("synthesis", {}).get("num_images", 0)
            shown = synthetic if "/soft_labels/synthetic" in step.path else images
            return START + measured["forward"] * shown * views(settings, data["modality"])
        if step.rule == "synthesise":
            steps = settings.get("steps") or 25
            return START + measured["forward"] * self.study.config["synthesis"]["num_images"] * steps
        return START + 1.5 * measured["forward"] * tests

    def _measurement(self, step: Step) -> dict[str, Any] | None:
        return self.measured.get(_key(self._kind(step))) if step.configs else None

    def _kind(self, step: Step) -> dict[str, Any]:
        assert step.configs
        files = list(config_files(*step.configs))
        return {"configs": files, "overrides": keys(step), "channels": self._channels(step)}

    def _channels(self, step: Step) -> int:
        assert step.configs
        dataset = step.path.removeprefix(self.study.output + "/").split("/")[0]
        return self.study.config["datasets"][dataset]["in_channels"] if step.configs[0] in (STUDENT, DDPM) else 1

    def _data(self, step: Step) -> dict[str, Any]:
        dataset, fold = step.path.removeprefix(self.study.output + "/").split("/")[:2]
        cell = next(cell for cell in self.study.cells(dataset) if cell.fold == fold)
        return json.loads(Path(self.study.prepare(cell).output).read_text(encoding="utf-8"))


def keys(step: Step) -> dict[str, str]:
    """Return the keys that a training is started with, but for its paths, seed and budget."""
    parts = step.command[step.command.index("--bundle_root") + 2 :]
    given = {key.removeprefix("--"): value for key, value in zip(parts[::2], parts[1::2], strict=True)}
    return {key: value for key, value in given.items() if key not in (*PATHS, "seed", "num_labelled")}


def study_key(study: Study, step: Step) -> str:
    """Return the key of the study's YAML that a step comes from."""
    parts = step.path.removeprefix(study.output + "/").split("/")
    kinds = {"teachers": "teachers", "distil": "pretraining", "rival": "pretraining", "finetune": "methods"}
    name = next((f"{kinds[kind]}/{parts[number + 1]}" for number, kind in enumerate(parts) if kind in kinds), "")
    if name.startswith("methods/") and name.partition("/")[2] not in study.config["methods"]:
        return f"pretraining/{name.partition('/')[2].removesuffix('_start')}/start"
    if name.startswith("pretraining/"):
        pretraining = name.partition("/")[2]
        return f"pretraining/{study.config['pretraining'][pretraining].get('round_of', pretraining)}"
    return name or {"ddpm": "synthesis/train", "synthesise": "synthesis/sample"}.get(step.rule, f"datasets/{parts[0]}")


def _key(training: Mapping[str, Any]) -> str:
    """Trainings that differ only in their length cost the same a step."""
    length = ("max_epochs", "iterations_per_epoch", "val_interval", "learning_rate", "warmup_steps", "preview_interval")
    overrides = {key: value for key, value in training["overrides"].items() if key not in length}
    return json.dumps({**training, "overrides": overrides}, sort_keys=True)


def _training(step: Step) -> Step | None:
    """Return the training whose network a step runs."""

    def above(step: Step) -> Iterator[Step]:
        for needed in step.needs:
            yield needed
            yield from above(needed)

    wanted = {"synthesise": ("ddpm",), "soft_labels": ("teacher",)}.get(step.rule, TRAININGS)
    for bundle in (needed for needed in step.needs if needed.rule == "bundle"):
        return next((needed for needed in bundle.needs if needed.rule in TRAININGS), None)
    direct = [needed for needed in step.needs if needed.rule in wanted]
    return direct[0] if direct else next((needed for needed in above(step) if needed.rule in wanted), None)


def _settings(step: Step) -> dict[str, Any]:
    assert step.configs
    given = {key: float(value) if value.replace(".", "").isdigit() else value for key, value in keys(step).items()}
    return {**merged_config(*step.configs), **given}


def views(settings: Mapping[str, Any], modality: str) -> int:
    """Return how often a soft label's image is shown to the teacher: mirrored as in training, or as `tta` says."""
    from tskd.distillation.augmentation_presets import PRESETS, preset_of  # needs torch

    if settings["tta"] is None or str(settings["logits"]).lower() == "false":
        return 1
    if "trained_flips" not in str(settings["tta"]):
        tta = ast.literal_eval(str(settings["tta"]).removeprefix("$"))
        return (1 + len(tta.get("flips", ()))) * (1 + len(tta.get("scales", ()))) if tta else 1
    preset = PRESETS[preset_of(modality)]
    return 1 + sum(float(settings.get(f"augmentation#{key}", preset.get(key, 0))) > 0 for key in ("flip", "flip_y"))


def _slices(entries: list[Mapping[str, Any]]) -> int:
    """Images to segment: a volume counts as 30, which its file would have to be opened to know better."""
    return sum(30 if entry["image"].endswith((".nii", ".nii.gz")) else 1 for entry in entries)
