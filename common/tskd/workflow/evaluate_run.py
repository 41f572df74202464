"""`tskd evaluate --run RUN`: the evaluation of a training, with the settings that it wrote into versions.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.export.several_slices import SEVERAL_SLICES
from tskd.files import sha256
from tskd.options import refuse_unknown
from tskd.predict.shipped_inferer import check_flips
from tskd.workflow.commands import (
    STUDENT,
    TEACHER,
    bundle_command,
    config_files,
    defines_network,
    has_key,
    merged_config,
)
from tskd.workflow.harmless_flips import warn_of_flips

logger = logging.getLogger(__name__)
# settings that the model goes on with
KEPT = ("vfm", "image_size", "num_classes", "in_channels", "largest_component", *SEVERAL_SLICES)


def evaluate_command(
    run: Path,
    dataset_file: Path | None = None,
    section: str = "test",
    more: Mapping[str, Any] | None = None,
    flips: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return arguments of `python -m` that evaluate a run, into its folder.

    Args:
        run: output_dir of a teacher's or student's training.
        dataset_file: dataset.json; None looks for it, as `find_dataset`.
        section: list of dataset.json.
        more: further keys of evaluate.json.
        flips: axes of which the logits of mirrored images are averaged.

    Raises:
        TskdError: no versions.json or weights in the run, no dataset.json, or one that is not that of the training and
            was not named, a key that the configs do not have, or flips
            of x where a structure's name says a side.
    """
    file, model = run / "versions.json", run / "models" / "model.pt"
    if missing := [str(path) for path in (file, model) if not path.is_file()]:
        raise TskdError(f"{run}: expected the output_dir of a training, found no {', '.join(missing)}")
    made_with = json.loads(file.read_text(encoding="utf-8"))
    settings = made_with.get("settings", {})
    bundle = TEACHER if "vfm" in settings else STUDENT
    names = [Path(name).stem for name in made_with.get("config", [])]
    exist = [name for name in names if Path(*config_files(bundle, [name])).is_file()]
    overlays = [name for name in exist if name != "train" and defines_network(bundle, name)]
    data = find_dataset(run) if dataset_file is None else dataset_file
    _refuse_other_lists(run, data, made_with.get("data", {}).get("sha256"), section, named=dataset_file is not None)
    images = ["images_2d"] if _images_2d(data, section) else []
    configs = ("train", *images, *overlays, "evaluate")
    refuse_unknown(more or {}, merged_config(bundle, configs), "tskd evaluate --set")
    values = {"dataset_dir": data.parent, "output_dir": run, "model_dir": run / "models", "section": section}
    values |= {key: settings[key] for key in KEPT if key in settings and has_key(bundle, configs, key)}
    values |= made_with.get("network_keys", {})
    if flips:
        check_flips(flips, json.loads(data.read_text(encoding="utf-8"))["labels"])
        warn_of_flips(flips, data)
        values["flips"] = list(flips)
    if settings.get("num_labelled") is not None:
        values["num_labelled"] = settings["num_labelled"]
    return bundle_command(bundle, configs, {**values, "seed": settings.get("seed", 0), **(more or {})})


def find_dataset(run: Path) -> Path:
    """Return the dataset.json that a run was trained with.

    It is looked for where versions.json says, and in `dataset/` above the run; of several, one with the checksum in
    versions.json is taken first.

    Raises:
        TskdError: there is no such folder, or it is in neither place.
    """
    if not run.is_dir():
        raise TskdError(f"{run}: expected the folder of a training, found none. Correct --run")
    file = run / "versions.json"
    made_with = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    data, named = made_with.get("data", {}), Path(made_with.get("settings", {}).get("dataset_file", "dataset.json"))
    candidates = [run / data["file"]] if "file" in data else []
    candidates += [named] if len(named.parts) > 1 else []
    candidates += [folder / "dataset" / "dataset.json" for folder in run.resolve().parents]
    there = [path for path in candidates if path.is_file()]
    same = [path for path in there if sha256(path) == data.get("sha256")]
    if not there:
        raise TskdError(
            f"{run}: expected the dataset.json of the training at {named} or in a folder `dataset` above the run, "
            "found none. Name it with --dataset-file"
        )
    return (same or there)[0]


def _refuse_other_lists(run: Path, dataset_file: Path, recorded: str | None, section: str, named: bool) -> None:
    """Refuse a dataset.json that has changed since the training; where it was named by the user, only warn."""
    if recorded is None or not dataset_file.is_file() or sha256(dataset_file) == recorded:
        return
    words = (
        f"{dataset_file}: expected the dataset.json that {run} was trained with, found one with other lists, names or "
    )
    words += f"settings. If patients of its {section} list were in that training, the numbers are too good"
    if not named:
        raise TskdError(f"{words}. Name the right one with --dataset-file, or this one if it is meant")
    logger.warning("%s", words)


def _images_2d(dataset_file: Path, section: str) -> bool:
    entries = json.loads(dataset_file.read_text(encoding="utf-8")).get(section, [])
    return not any(entry["image"].endswith((".nii", ".nii.gz")) for entry in entries)
