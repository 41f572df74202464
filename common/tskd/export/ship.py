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
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

import torch
from monai.bundle import ConfigParser

from tskd.data.datalist import read
from tskd.data.io.intensity import Intensity
from tskd.errors import TskdError
from tskd.export.bundle_scripts import RUN, write_scripts
from tskd.export.carried_network import PACKAGE, carry_network
from tskd.export.plain_training import plain_training
from tskd.export.terms import data_licence, front_matter, write_terms
from tskd.handlers.provenance import describe_data
from tskd.state import load_weights

_CONFIGS = ("inference.json", "inference_2d.json", "train.json", "metadata.json", "logging.conf")  # what goes along

_WITH_EINOPS = (  # modules of MONAI
    "monai.networks.nets.swin_unetr",
    "monai.networks.blocks.patchembedding",
    "monai.networks.blocks.selfattention",
    "monai.networks.blocks.crossattention",
)

_SEARCH = ", with this folder on `PYTHONPATH`, because its network lies in `scripts/`"  # of its README
MIN_DICE = 0.1  # mean Dice of a model that has learned something


def ship_run(
    bundle: str | Path,
    run: str | Path,
    output: str | Path,
    dataset_file: str | Path,
    model: str | Path | None = None,
    force: bool = False,
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

    Returns:
        The output folder.

    Raises:
        TskdError: a diffusion model's run; a dataset.json with other labels, channels, modality or scaling than that
            of the training (or, without `force`, other lists); the model was not evaluated or has learned nothing
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
    _check_data(path, versions.get("data", {}), dataset_file, force)
    model = Path(run) / "models" / "model.pt" if model is None else Path(model)
    if not model.is_file():
        raise TskdError(f"{model}: expected the trained weights, found none. Name the file that has them: --model FILE")
    dice = _dice_sentence(Path(run), force)
    overlay = _network_overlay(Path(bundle) / "configs", versions.get("config", []))
    components = settings.get("largest_component", [])
    size = int(settings["image_size"])
    keys = {"teacher": versions.get("teacher"), "network_keys": versions.get("network_keys", {})}
    if "vfm" in settings:
        return ship_teacher(bundle, model, output, dataset_file, size, settings["vfm"], components, dice)
    return ship_student(bundle, model, output, dataset_file, size, overlay, components, dice, **keys)


def ship_teacher(
    bundle: str | Path,
    model: str | Path,
    output: str | Path,
    dataset_file: str | Path,
    image_size: int,
    vfm: str,
    largest_component: Sequence[int] = (),
    dice: str = "It was not evaluated.",
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
        dice: how well it did, in a sentence.

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
    return ship_student(
        bundle, model, output, dataset_file, image_size, network, largest_component, f"{dice}\n{said}", vfm
    )


def ship_student(
    bundle: str | Path,
    model: str | Path,
    output: str | Path,
    dataset_file: str | Path,
    image_size: int,
    network: str | Mapping[str, Any] | None = None,
    largest_component: Sequence[int] = (),
    dice: str = "It was not evaluated.",
    teacher: str | None = None,
    network_keys: Mapping[str, Any] | None = None,
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
        dice: how well it did, in a sentence, for its README.
        teacher: foundation model behind its soft labels; "" for none, None where that is not known.
        network_keys: keys of the network that the training was given, such as network_def#feature_size.

    Returns:
        The output folder.

    Raises:
        TskdError: the output's name does not fit or it is not empty, the data set mixes volumes and images, or the
            weights do not fit the network, with the names of the entries.
    """
    bundle, output = Path(bundle), Path(output).resolve()
    _check_folders(bundle, output)
    dataset = read(dataset_file)
    sizes = {"image_size": image_size, "in_channels": dataset["channels"], "num_classes": len(dataset["labels"])}
    settings = {**sizes, "largest_component": list(largest_component)}
    flat = _is_2d(dataset, dataset_file)
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
        extra: dict[str, Any] = dict(RUN)
        if isinstance(network, str):
            extra["network_def"] = json.loads((configs / network).read_text())["network_def"]
        elif network is not None:
            extra |= {"network_def": dict(network), "imports": [*config["imports"], f"$import {PACKAGE}"]}
        config = _with_keys({**config, **settings, **scaling, **extra}, network_keys or {})
        _write(configs / "inference.json", config)
        network_def = _parser([configs / "inference.json"]).get_parsed_content("network_def")
        load_weights(network_def, model)
        _write_metadata(configs / "metadata.json", dataset, settings, flat, network_def)
        _write_readme(draft, dataset, settings, flat, network_def, dice)
        write_scripts(draft / "scripts")
        if network is None or isinstance(network, str):
            carry_network(draft)
            inference = json.loads((configs / "inference.json").read_text(encoding="utf-8"))
            _write(configs / "train.json", plain_training(inference, flat))
        else:
            (configs / "train.json").unlink()
        write_terms(draft, dataset, teacher)
        for file in set(configs.iterdir()) - {configs / name for name in _CONFIGS}:
            file.unlink()
        (draft / "models").mkdir()
        shutil.copyfile(model, draft / "models" / "model.pt")
        if output.exists():
            output.rmdir()
        os.rename(draft, output)
    return output


def _check_data(path: Path, trained: dict[str, Any], dataset_file: str | Path, force: bool) -> None:
    """Raise TskdError where a dataset.json is not the one that a run was trained with; `trained` is versions.json's."""
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


def _dice_sentence(run: Path, force: bool) -> str:
    """Return how well a run did on its evaluation, in a sentence.

    Raises:
        TskdError: it was not evaluated, or its mean Dice is below `MIN_DICE`, unless `force`.
    """
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
        return "It was not evaluated."
    by_organ = ", ".join(
        f"{name} {values['dice']['mean']:.3f}" for name, values in summary.get("labels", {}).items() if "dice" in values
    )
    patients = summary.get("patients", summary.get("cases"))
    return f"Mean Dice {mean:.3f} on {patients} patients it was evaluated on ({by_organ})."


def _with_keys(config: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with other values of some of its keys, which have `#` between their levels."""
    parser = ConfigParser(copy.deepcopy(config))
    for key, value in keys.items():
        parser[key] = value
    result = dict(parser.get())
    result.pop(ConfigParser.meta_key, None)
    return result


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


def _write_metadata(
    path: Path, dataset: dict[str, Any], settings: dict[str, Any], flat: bool, network: torch.nn.Module
) -> None:
    """Write the network, the structures, sizes, channels and label names into metadata.json."""
    metadata = json.loads(path.read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    names = ("red", "green", "blue") if settings["in_channels"] == 3 else ("image",)
    channels = {str(index): name for index, name in enumerate(names)}
    image |= {"num_channels": settings["in_channels"], "modality": dataset["modality"], "channel_def": channels}
    pred |= {"num_channels": settings["num_classes"], "channel_def": dataset["labels"]}
    for tensor in (image, pred):
        tensor["spatial_shape"] = [settings["image_size"]] * 2
    metadata["data_type"] = "png" if flat else "nifti"
    input_kind = "2-D images" if flat else "volumes, slice by slice"
    metadata["name"] = f"Segmentation of {_structures(dataset)}"
    metadata["description"] = f"{type(network).__name__}, trained on few labels. {dataset['modality']}: {input_kind}."
    metadata["image_classes"] = f"{', '.join(names)}: intensities scaled to [0, 1]"
    metadata["required_packages_version"] = required_packages(flat, bool(settings["largest_component"]), network)
    _write(path, metadata)


def _write_readme(
    draft: Path, dataset: dict[str, Any], settings: dict[str, Any], flat: bool, network: torch.nn.Module, dice: str
) -> None:
    """Fill docs/shipped.md and put it in the place of the README that is about training."""
    largest_names = [dataset["labels"].get(str(index), f"class {index}") for index in settings["largest_component"]]
    packages = ["monai", *required_packages(flat, bool(largest_names), network)]
    head = front_matter(dataset, [type(network).__name__.lower(), dataset["modality"].lower()])
    text = Template((draft / "docs" / "shipped.md").read_text(encoding="utf-8")).substitute(
        dice=dice,
        network=type(network).__name__,
        parameters=f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f}",
        classes=_structures(dataset),
        what="2-D images" if flat else "volumes (NIfTI), slice by slice",
        size=settings["image_size"],
        search="" if type(network).__module__.startswith(("monai.", f"{PACKAGE}.networks.sam")) else _SEARCH,
        packages=", ".join(f"`{package}`" for package in packages),
        files="PNG and JPEG" if flat else "`.nii` and `.nii.gz`",
        values=", ".join(f"{index} {name}" for index, name in dataset["labels"].items()),
        modality=dataset["modality"],
        data=dataset["name"],
        licence=data_licence(dataset),
        scaling="" if flat else " Intensities are scaled as `scale_intensity` in inference.json says.",
        components=f" Of {', '.join(largest_names)} only the largest connected component is kept."
        if largest_names
        else "",
    )
    (draft / "docs" / "shipped.md").unlink()
    (draft / "docs" / "README.md").write_text(head + text, encoding="utf-8")


def required_packages(flat: bool, largest_component: bool, network: torch.nn.Module) -> dict[str, str]:
    """Return the packages that a shipped bundle needs beside MONAI, PyTorch and NumPy, and their versions here.

    Args:
        flat: whether it takes 2-D images.
        largest_component: whether only the largest component of some class is kept.
        network: its network.
    """
    names = [
        "fire",
        *([PACKAGE] if type(network).__module__.startswith(f"{PACKAGE}.networks.sam") else []),
        *(["einops"] if any(type(part).__module__ in _WITH_EINOPS for part in network.modules()) else []),
        "nibabel",
        "pytorch-ignite",
        *(["scikit-image"] if largest_component else []),
        *(["pillow"] if flat else []),
    ]
    return {name: version(name) for name in names}


def _structures(dataset: dict[str, Any]) -> str:
    return ", ".join(name for index, name in dataset["labels"].items() if index != "0")


def _parser(files: list[Path]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    return parser


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
