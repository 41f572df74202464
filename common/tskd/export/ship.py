"""Ship a trained student as a stand-alone MONAI bundle for MONAI Label, MONAI Deploy or any MONAI installation.

The bundle's configs hold defaults; a run may have had another image size, other channels or classes. The copy has the
run's values in train.json, inference.json and metadata.json, so that nobody has to pass them on.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from tskd.data.datalist import read
from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.export.bundle_scripts import RUN, write_scripts
from tskd.export.carried_network import PACKAGE, carry_network, find_scripts, leave_out, needs_scripts
from tskd.export.plain_training import plain_training
from tskd.export.several_slices import CONTIGUOUS, inferer_keys, resolved_network, several_slices
from tskd.export.shipped_docs import label_options, write_metadata, write_readme
from tskd.export.shipped_record import Record, as_trial, run_record
from tskd.export.terms import write_terms
from tskd.export.unused_modules import unused_modules, without_modules
from tskd.handlers.provenance import describe_data
from tskd.predict.shipped_bundle import input_shape
from tskd.predict.shipped_inferer import AXES, check_flips
from tskd.state import copy_file, load_weights, save_weights

_CONFIGS = ("inference.json", "inference_2d.json", "train.json", "metadata.json", "logging.conf")  # what goes along


def ship_run(
    bundle: str | Path,
    run: str | Path,
    output: str | Path,
    dataset_file: str | Path,
    model: str | Path | None = None,
    force: bool = False,
    accuracy: Sequence[str] = (),
    flips: Sequence[str] = (),
    data_name: str = "",
    trial: bool = False,
) -> Path:
    """Ship the student, or the teacher, of a training's `output_dir`.

    Args:
        bundle: the student's bundle folder.
        run: folder with versions.json, and with models/model.pt where `model` is None.
        output: new folder, "segmentation" in its name.
        dataset_file: the training's dataset.json.
        model: the training's `model_dir`/model.pt where that is somewhere else.
        force: ship a model that was never evaluated, or whose mean Dice is near 0, or with a dataset.json whose lists
            have changed since the training.
        accuracy: lines on its evaluation for the README; by default what summary.json says.
        flips: axes of which logits are averaged over mirrored images, as for `ship_student`.
        data_name: of the data set; by default the one in its dataset.json.
        trial: the training was one of toy length, which the README and metadata.json then say.

    Returns:
        The output folder.

    Raises:
        TskdError: the run of a diffusion model; a dataset.json with other labels, channels, modality or scaling than
            that of the training (or, without `force`, other lists); the model was not evaluated or has learned nothing
            (without `force`); versions.json is missing or lacks the image size; there is no such model; or as
            `ship_student`.
    """
    path = Path(run) / "versions.json"
    if not path.is_file():
        raise TskdError(f"{path}: expected the file that a training writes, found none. Give the training's output_dir")
    versions = json.loads(path.read_text())
    settings = versions.get("settings", {})
    if "image_size" not in settings:
        raise TskdError(f"{path}: expected a student's settings with image_size, found {', '.join(settings) or 'none'}")
    if "prediction_type" in settings:
        raise TskdError(
            f"{path}: expected a student or a teacher, found a diffusion model, which segments nothing. Its folder "
            "models/pipeline has the network and the schedule it was trained with"
        )
    check_data(path, versions.get("data", {}), dataset_file, force)
    model = Path(run) / "models" / "model.pt" if model is None else Path(model)
    if not model.is_file():
        raise TskdError(f"{model}: expected the trained weights, found none. Name the file that has them: --model FILE")
    record = replace(run_record(Path(run), model, dataset_file, accuracy, force, flips), data_name=data_name)
    record = as_trial(record, Path(run)) if trial else record
    overlay = _network_overlay(Path(bundle) / "configs", versions.get("config", []))
    components = settings.get("largest_component", [])
    size = int(settings["image_size"])
    keys = {"teacher": versions.get("teacher"), "network_keys": versions.get("network_keys", {})}
    if "vfm" in settings:
        return ship_teacher(
            bundle, model, output, dataset_file, size, settings["vfm"], components, record, keys["network_keys"], flips
        )
    several = several_slices(settings)
    keys |= {"several": several, "flips": flips}
    return ship_student(bundle, model, output, dataset_file, size, overlay, components, record, **keys)


def ship_teacher(
    bundle: str | Path,
    model: str | Path,
    output: str | Path,
    dataset_file: str | Path,
    image_size: int,
    vfm: str,
    largest_component: Sequence[int] = (),
    record: Record | None = None,
    network_keys: Mapping[str, Any] | None = None,
    flips: Sequence[str] = (),
) -> Path:
    """Ship a teacher in the form of a student's bundle: the same preprocessing, scripts and terms, another network.

    Its network is this project's, so that the folder needs tskd where it runs, and says so; it has no train.json.

    Args:
        bundle: the student's bundle folder.
        model: weights, a state dict of tensors.
        output: as for `ship_student`, as are the others.
        dataset_file: the training's dataset.json.
        image_size: side in pixels that the teacher was trained at.
        vfm: its foundation model.
        largest_component: classes of which only the largest connected component is kept.
        record: what is known of its training and evaluation.
        network_keys: keys of the network that the training was given, such as network_def#high_res_features.
        flips: as for `ship_student`.

    Raises:
        TskdError: as `ship_student`.
    """
    network = {
        "_target_": f"{PACKAGE}.networks.build_sam",
        "vfm": vfm,
        "num_classes": "@num_classes",
        "image_size": "@image_size",
    }
    said = (
        f"This is a teacher ({vfm}): large and slow, it runs where tskd is installed, and is not trained further there."
    )
    record = record or Record()
    record = replace(record, dice=f"{record.dice}\n{said}")
    return ship_student(
        bundle, model, output, dataset_file, image_size, network, largest_component, record, vfm, network_keys,
        flips=flips,
    )  # fmt: skip


def ship_student(
    bundle: str | Path,
    model: str | Path,
    output: str | Path,
    dataset_file: str | Path,
    image_size: int,
    network: str | Mapping[str, Any] | None = None,
    largest_component: Sequence[int] = (),
    record: Record | None = None,
    teacher: str | None = None,
    network_keys: Mapping[str, Any] | None = None,
    several: Mapping[str, Any] | None = None,
    flips: Sequence[str] = (),
) -> Path:
    """Copy a student bundle with the weights and settings of a training; atomically.

    For a data set of 2-D images, inference.json and train.json are the ones for images; else they take volumes. The
    copy's train.json (`plain_training`) starts from model.pt and needs MONAI alone, as in MONAI Label's Train. Its
    docs/README.md, from docs/shipped.md, and its metadata.json tell of this network, these classes and these images.

    Args:
        bundle: the student's bundle folder.
        model: weights, a state dict of tensors.
        output: new or empty folder. MONAI Label reads the task from its name, which must have "segmentation" in it.
        dataset_file: the training's dataset.json: channels, labels, modality and how volumes are scaled are its.
        image_size: side in pixels that the student was trained at.
        network: the bundle's config that names another network than train.json, such as "segresnet.json", or the
            network's definition; one of this project that is given so is not carried, and the copy has no train.json.
        largest_component: classes of which only the largest connected component is kept.
        record: what is known of its training and evaluation, for its README.
        teacher: foundation model behind its soft labels; "" for none, None where that is not known.
        network_keys: keys of the network that the training was given, such as network_def#feature_size.
        several: settings of a training whose student sees several slices (`several_slices`); none of a 2-D student.
        flips: axes, "x", "y" or both, of which logits are averaged over the mirrored images, too.

    Returns:
        The output folder.

    Raises:
        TskdError: the output's name does not fit or it is not empty, the data set mixes volumes and images or has 2-D
            images for a student that sees several slices, the weights do not fit the network, with the names of the
            entries, or x is to be flipped where a structure's name says a side.
    """
    bundle, given, output = Path(bundle), Path(output), Path(output).resolve()
    _check_folders(bundle, output)
    dataset = read(dataset_file)
    if record and record.data_name:
        dataset["name"] = record.data_name
    sizes = {"image_size": image_size, "in_channels": dataset["channels"], "num_classes": len(dataset["labels"])}
    check_flips(flips, dataset["labels"])
    settings = {
        **sizes,
        "largest_component": list(largest_component),
        "flips": [axis for axis in AXES if axis in flips],
    }
    flat, several = _is_2d(dataset, dataset_file), several or {}
    if flat and several:
        raise TskdError(
            f"{dataset_file}: expected volumes in the validation and test list, of which this student sees several "
            "slices at once, found 2-D images. Give the training's dataset.json: --dataset-file FILE"
        )
    scaling = {} if flat else {"scale_intensity": Intensity.of(dataset_file).transform()}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".ship_") as folder:
        draft = Path(folder) / output.name
        for name in ("configs", "docs"):
            shutil.copytree(bundle / name, draft / name)
        configs = draft / "configs"
        parts = ["inference.json", *(["inference_2d.json"] if flat else [])]
        config = _parser([configs / name for name in parts]).get()
        config.pop(ConfigParser.meta_key, None)
        extra: dict[str, Any] = {**RUN, **inferer_keys(several, {**config, **settings})}
        keys = dict(network_keys or {})
        if several.get("patch_size") and not isinstance(network, Mapping):
            files = [configs / name for name in dict.fromkeys(("train.json", "volume.json", network or "volume.json"))]
            extra["network_def"] = resolved_network(
                files, {"dataset_file": str(dataset_file), **several, **sizes, **keys}
            )
            keys = {}
        elif isinstance(network, str):
            extra["network_def"] = json.loads((configs / network).read_text())["network_def"]
        elif network is not None:
            extra |= {"network_def": dict(network), "imports": [*config["imports"], f"$import {PACKAGE}"]}
            extra["memory_format"] = CONTIGUOUS
        extra["displayable_configs"] = config["displayable_configs"] | label_options(dataset, flat)
        if several.get("neighbour_slices"):
            keys["network_def#in_channels"] = "@network_channels"
        if "@network_channels" in str(keys):  # a key of train.json that overlays may refer to
            extra.setdefault("network_channels", settings["in_channels"])
        config = _with_keys({**config, **settings, **scaling, **extra}, keys)
        _write(configs / "inference.json", config)
        network_def = _network(configs / "inference.json")
        load_weights(network_def, model)
        write_scripts(draft / "scripts")
        if network is None or isinstance(network, str):
            _write_plain(draft, network_def, model, flat)
        else:
            (configs / "train.json").unlink()
            copy_file(model, draft / "models" / "model.pt")
        write_metadata(configs / "metadata.json", dataset, config, flat, network_def, record or Record())
        write_readme(draft, dataset, config, flat, network_def, record or Record())
        write_terms(draft, dataset, teacher, record.first if record else "")
        for file in set(configs.iterdir()) - {configs / name for name in _CONFIGS}:
            file.unlink()
        if output.exists():
            output.rmdir()
        os.rename(draft, output)
    return given


def _write_plain(draft: Path, network: torch.nn.Module, model: str | Path, flat: bool) -> None:
    """Write weights, network and train.json for MONAI alone; modules without use are left out, in `network`, too.

    A network without an argument `dropout`, as MONAI Label's scores by Monte-Carlo dropout need it, is given one.
    """
    carry_network(draft)
    file = draft / "configs" / "inference.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    example = torch.rand(1, *input_shape(config))
    unused = unused_modules(network, example)
    if unused or "dropout" not in signature(type(network)).parameters:
        leave_out(draft, unused)
        config = json.loads(file.read_text(encoding="utf-8"))
    if unused:
        save_weights(without_modules(network, unused), draft / "models" / "model.pt")
    else:
        copy_file(model, draft / "models" / "model.pt")
    train = plain_training(config, flat)
    _write(draft / "configs" / "train.json", find_scripts(train) if needs_scripts(config) else train)


def check_data(path: Path, trained: dict[str, Any], dataset_file: str | Path, force: bool) -> None:
    """Refuse a dataset.json that is not the one that a run was trained with.

    Args:
        path: versions.json of the run.
        trained: what it says of the data; nothing of an older run.
        dataset_file: the one that was given.
        force: let other lists of the same labels and scaling pass.

    Raises:
        TskdError: saying what differs.
    """
    present = describe_data(dataset_file)
    for key in ("labels", "channels", "modality", "intensity"):
        if key in trained and trained[key] != present[key]:
            raise TskdError(
                f"{dataset_file}: expected {key} {json.dumps(trained[key])}, which the training had ({path}), found "
                f"{json.dumps(present[key])}. Give the training's dataset.json: --dataset-file FILE"
            )
    if trained and trained["sha256"] != present["sha256"] and not force:
        raise TskdError(
            f"{dataset_file}: expected the file of the training, whose sha256 is in {path}, found another: the "
            "same labels and scaling, but other images or lists. Give that file: --dataset-file FILE, or --force"
        )


def _with_keys(config: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with other values of some of its keys, which have `#` between their levels."""
    parser = ConfigParser(copy.deepcopy(config))
    for key, value in keys.items():
        parser[key] = value
    result = dict(parser.get())
    result.pop(ConfigParser.meta_key, None)
    return result


def _network(inference: Path) -> torch.nn.Module:
    parser = _parser([inference])
    try:
        return parser.get_parsed_content("network_def")
    except ValueError as error:
        if "is not defined in the config" not in str(error):
            raise
        raise TskdError(
            f"network_def: expected values, or references to image_size, in_channels and num_classes, found {error}. "
            "Write plain values into the overlay and into network_keys of the run's versions.json"
        ) from error


def _network_overlay(configs: Path, names: list[str]) -> str | None:
    """Return the last of a run's configs, but train.json, that names a network."""
    overlays = [name for name in names if name != "train.json" and (configs / name).is_file()]
    return next(
        (name for name in reversed(overlays) if "network_def" in json.loads((configs / name).read_text())), None
    )


def _check_folders(bundle: Path, output: Path) -> None:
    missing = [name for name in ("configs", "docs/shipped.md") if not (bundle / name).exists()]
    if missing:
        raise TskdError(f"{bundle}: expected the student's bundle folder, found none of {', '.join(missing)} in it")
    if "segmentation" not in output.name.lower():
        raise TskdError(
            f"{output}: expected a folder name with 'segmentation' in it, from which MONAI Label reads the task. "
            f"Choose for example {output / bundle.name}"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TskdError(f"{output}: expected a new or empty folder, found files in it. Choose another or remove it")


def _is_2d(dataset: dict[str, Any], dataset_file: str | Path) -> bool:
    """Return whether the images to segment are 2-D images and not volumes."""
    volumes = [entry["image"].endswith((".nii", ".nii.gz")) for entry in [*dataset["validation"], *dataset["test"]]]
    if not volumes or any(volumes) != all(volumes):
        raise TskdError(
            f"{dataset_file}: expected validation and test entries that are all volumes (.nii, .nii.gz) or all images, "
            f"found {sum(volumes)} volumes among {len(volumes)} entries"
        )
    return not volumes[0]


def _parser(files: list[Path]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    return parser


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
