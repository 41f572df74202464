"""README.md and metadata.json of a shipped bundle: what it is, what it was made of, how well it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

import torch

from tskd.export.carried_network import PACKAGE
from tskd.export.shipped_record import Record
from tskd.export.terms import data_licence, front_matter
from tskd.files import sha256
from tskd.predict.mask_overlay import COLOURS
from tskd.predict.shipped_bundle import input_shape

_WITH_EINOPS = (  # modules of MONAI
    "monai.networks.nets.swin_unetr",
    "monai.networks.blocks.patchembedding",
    "monai.networks.blocks.selfattention",
    "monai.networks.blocks.crossattention",
)


def write_metadata(
    path: Path,
    dataset: Mapping[str, Any],
    settings: Mapping[str, Any],
    flat: bool,
    network: torch.nn.Module,
    record: Record,
) -> None:
    """Write the network, the structures, sizes, channels, label names and origin into metadata.json.

    Args:
        path: metadata.json, which is changed.
        dataset: dataset.json of the training.
        settings: inference.json, with image_size, in_channels, num_classes, largest_component.
        flat: whether it takes 2-D images.
        network: as it is shipped.
        record: of its training and evaluation.
    """
    metadata = json.loads(path.read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    colours, count = ("red", "green", "blue"), settings.get("neighbour_slices", 0)
    names = colours if settings["in_channels"] == 3 else ("image",)
    seen = [f"{name}, slice {z:+d}" if z else name for z in range(-count, count + 1) for name in names]
    channels = {str(index): name for index, name in enumerate(seen)}
    shape = input_shape(settings)
    image |= {"num_channels": shape[0], "modality": dataset["modality"], "channel_def": channels}
    pred |= {"num_channels": settings["num_classes"], "channel_def": dataset["labels"]}
    for tensor in (image, pred):
        tensor |= {"spatial_shape": list(shape[1:]), "is_patch_data": "patch_size" in settings}
    metadata["data_type"] = "png" if flat else "nifti"
    input_kind = "2-D images" if flat else f"volumes, {_seen(settings)}"
    metadata["name"] = f"Segmentation of {_structures(dataset)}"
    metadata["description"] = f"{type(network).__name__}, trained on few labels. {dataset['modality']}: {input_kind}."
    if record.trial:
        metadata["description"] += f" {record.trial}"
    metadata["image_classes"] = f"{', '.join(names)}: intensities scaled to [0, 1]"
    metadata["required_packages_version"] = required_packages(flat, bool(settings["largest_component"]), network)
    if record.mean_dice is not None:
        metadata["eval_metrics"] = {"mean_dice": round(record.mean_dice, 4)}
    weights = {"weights_sha256": sha256(path.parents[1] / "models" / "model.pt")}
    metadata["provenance"] = {**weights, "data_licence": data_licence(dataset), **record.provenance}
    path.write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")


def write_readme(
    draft: Path,
    dataset: Mapping[str, Any],
    settings: Mapping[str, Any],
    flat: bool,
    network: torch.nn.Module,
    record: Record,
) -> None:
    """Fill docs/shipped.md and put it in the place of the README that is about training; see `write_metadata`."""
    largest_names = [dataset["labels"].get(str(index), f"class {index}") for index in settings["largest_component"]]
    packages = ["monai", *required_packages(flat, bool(largest_names), network)]
    weights = draft / "models" / "model.pt"
    head = front_matter(dataset, [type(network).__name__.lower(), dataset["modality"].lower()])
    text = Template((draft / "docs" / "shipped.md").read_text(encoding="utf-8")).substitute(
        dice=record.dice,
        accuracy="\n".join(record.accuracy),
        training="\n".join([*record.training, f"- SHA-256 of `models/model.pt`: `{sha256(weights)}`."]),
        network=type(network).__name__,
        parameters=f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f}",
        classes=_structures(dataset),
        what="2-D images" if flat else f"volumes (NIfTI), {_seen(settings)}",
        size=settings["image_size"],
        packages=", ".join(f"`{package}`" for package in packages),
        files="PNG and JPEG" if flat else "`.nii` and `.nii.gz`",
        values=", ".join(f"{index} {name}" for index, name in dataset["labels"].items()),
        place="its size; its values are class indices, so that it looks black"
        if flat
        else "its axes and its place, in mm",
        modality=dataset["modality"],
        data=dataset["name"],
        licence=data_licence(dataset),
        unit="Each slice or image is segmented on its own." if _alone(settings) else _SEVERAL,
        scaling="" if flat else " Intensities are scaled as `scale_intensity` in inference.json says.",
        components=_flips(settings)
        + (f" Of {', '.join(largest_names)} only the largest connected component is kept." if largest_names else ""),
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


_SEVERAL = (
    "It sees several slices at once, so the order and the distance of slices must be those of the training's volumes."
)


def _alone(settings: Mapping[str, Any]) -> bool:
    return not (settings.get("neighbour_slices") or settings.get("patch_size"))


def _seen(settings: Mapping[str, Any]) -> str:
    """Return what the network sees of a volume at once, in words."""
    if patch := settings.get("patch_size"):
        return f"in patches of {' x '.join(map(str, patch))} voxels"
    if count := settings.get("neighbour_slices"):
        return f"each slice with {count} neighbour{'s' * (count > 1)} on each side"
    return "slice by slice"


def _flips(settings: Mapping[str, Any]) -> str:
    if not (flips := settings.get("flips")):
        return ""
    along = " and ".join(flips)
    return f" Logits are averaged over images mirrored along {along}, {2 ** len(flips)} times the work (`flips`)."


def _structures(dataset: Mapping[str, Any]) -> str:
    return ", ".join(name for index, name in dataset["labels"].items() if index != "0")


def label_options(dataset: Mapping[str, Any], flat: bool) -> dict[str, Any]:
    """Return what MONAI Label's server tells its clients beside the options: a colour of each structure, a file ending.

    The ending is that of masks. Without it the server answers 500 to a folder of DICOM, and writes the mask of a JPEG
    as JPEG, which changes its values.
    """
    names = [name.lower() for index, name in dataset["labels"].items() if index != "0"]
    colours = {name: list(COLOURS[number % len(COLOURS)]) for number, name in enumerate(names)}
    return {"label_colors": colours, "result_extension": ".png" if flat else ".nii.gz"}
