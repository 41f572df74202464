"""Ship a trained diffusion model as a bundle that draws images with the network it was trained with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from monai.bundle import ConfigParser

from tskd.data.datalist import read
from tskd.errors import TskdError
from tskd.export.new_folder import new_folder
from tskd.export.ship import check_data
from tskd.export.shipped_record import versions_line
from tskd.export.terms import data_licence, front_matter, write_terms
from tskd.files import sha256
from tskd.state import load_weights

_CONFIGS = ("inference.json", "metadata.json", "logging.conf")
_WITHOUT = ("_class_name", "_diffusers_version", "_name_or_path")  # of diffusers' config.json


def ship_diffusion(
    bundle: str | Path, run: str | Path, output: str | Path, dataset_file: str | Path, force: bool = False
) -> Path:
    """Write a copy of the bundle ddpm_synthesis with a run's network, schedule, settings and terms; atomically.

    Args:
        bundle: the diffusion model's bundle folder.
        run: output_dir of its training, with versions.json and models/pipeline.
        output: new or empty folder.
        dataset_file: the training's dataset.json.
        force: ship with a dataset.json whose lists have changed since the training.

    Returns:
        The output folder.

    Raises:
        TskdError: no pipeline, another dataset.json, a folder that is there, or weights that do not fit the pipeline.
    """
    bundle, run, output = Path(bundle), Path(run), Path(output)
    versions = json.loads((run / "versions.json").read_text(encoding="utf-8"))
    pipeline, model = run / "models" / "pipeline", run / "models" / "model.pt"
    if missing := [str(path) for path in (pipeline / "unet" / "config.json", model) if not path.is_file()]:
        raise TskdError(f"{run}: expected a trained diffusion model, found no {', '.join(missing)}. Train it again.")
    check_data(run / "versions.json", versions.get("data", {}), dataset_file, force)
    dataset, unet = read(dataset_file), json.loads((pipeline / "unet" / "config.json").read_text(encoding="utf-8"))
    with new_folder(output) as draft:
        (draft / "configs").mkdir()
        (draft / "docs").mkdir()
        for name in _CONFIGS:
            shutil.copyfile(bundle / "configs" / name, draft / "configs" / name)
        shutil.copytree(pipeline, draft / "models" / "pipeline")
        shutil.copyfile(model, draft / "models" / "model.pt")
        _write_inference(draft / "configs" / "inference.json", unet, versions.get("settings", {}))
        parser = ConfigParser()
        parser.read_config(str(draft / "configs" / "inference.json"))
        network = load_weights(parser.get_parsed_content("network_def"), draft / "models" / "model.pt")
        _write_metadata(draft, dataset, unet, versions)
        started = "another diffusion model, licence of its owner" if versions["settings"].get("init_from") else ""
        write_terms(draft, dataset, "", started)
        parameters = sum(value.numel() for value in network.parameters())
        _write_readme(draft, Path(bundle), dataset, unet, versions, parameters)
    return output


def _write_inference(path: Path, unet: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    network = {key: value for key, value in unet.items() if key not in _WITHOUT}
    config["network_def"]["unet"] = {"_target_": "diffusers.UNet2DModel", **network}
    if settings.get("num_labelled") is not None:
        config["num_labelled"] = settings["num_labelled"]
    path.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def _write_metadata(
    draft: Path, dataset: Mapping[str, Any], unet: Mapping[str, Any], versions: Mapping[str, Any]
) -> None:
    path = draft / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    channels, size = unet["out_channels"], [unet["sample_size"]] * 2
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    names = ("red", "green", "blue") if channels == 3 else ("noisy image",)
    names = (*names, *(f"label map: {name}" for name in dataset["labels"].values()))[: unet["in_channels"]]
    image |= {"num_channels": unet["in_channels"], "modality": dataset["modality"], "spatial_shape": size}
    image["channel_def"] = {str(index): name for index, name in enumerate(names)}
    kind = "noise" if versions["settings"].get("prediction_type") == "epsilon" else "velocity"
    pred |= {"num_channels": channels, "spatial_shape": size, "format": kind}
    pred["channel_def"] = {str(index): kind for index in range(channels)}
    metadata["name"] = f"Synthesis of images like those of {dataset['name']}"
    metadata["required_packages_version"] = {name: version(name) for name in metadata["required_packages_version"]}
    metadata["provenance"] = {
        "weights_sha256": sha256(draft / "models" / "model.pt"),
        "dataset_sha256": versions.get("data", {}).get("sha256"),
        "data_licence": data_licence(dataset),
        **{key: versions.get(key) for key in ("config", "config_sha256", "python", "packages")},
    }
    path.write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")


def _write_readme(
    draft: Path,
    bundle: Path,
    dataset: Mapping[str, Any],
    unet: Mapping[str, Any],
    versions: Mapping[str, Any],
    parameters: int,
) -> None:
    settings = versions["settings"]
    record = json.loads((draft / "models" / "pipeline" / "training.json").read_text(encoding="utf-8"))
    training = [
        f"- Trained on {len(record['images'])} images; their checksums are in `models/pipeline/training.json`.",
        f"- Prediction {settings.get('prediction_type')}, schedule {settings.get('beta_schedule')}, average of the "
        f"weights {settings.get('ema_decay')}; {versions.get('iterations', 'an unknown number of')} steps of "
        f"{settings.get('batch_size')} images; seed {settings.get('seed')}.",
        versions_line(versions),
        f"- SHA-256 of `models/model.pt`: `{sha256(draft / 'models' / 'model.pt')}`; of the configuration: "
        f"`{versions.get('config_sha256') or 'not recorded'}`.",
    ]
    drawn_to = " to label maps" if unet["in_channels"] > unet["out_channels"] else ""
    text = Template((bundle / "docs" / "shipped.md").read_text(encoding="utf-8")).substitute(
        data=dataset["name"],
        parameters=f"{parameters / 1e6:.1f}",
        modality=dataset["modality"],
        size=unet["sample_size"],
        labels=drawn_to,
        licence=data_licence(dataset),
        version=version("tskd"),
        training="\n".join(training),
    )
    head = front_matter(dataset, ["diffusion", dataset["modality"].lower()], "unconditional-image-generation")
    (draft / "docs" / "README.md").write_text(head + text, encoding="utf-8")
