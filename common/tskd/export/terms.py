"""Terms under which a shipped model may be used: what its data and its teacher's weights allow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

# licence of a data set, as its dataset.json has it -> identifier of the Hugging Face hub
SPDX = {
    "CC0 1.0": "cc0-1.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "CC BY-NC-ND 4.0": "cc-by-nc-nd-4.0",
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
}
UNKNOWN = "not stated"

# published weights -> their licence, as their owners state it
TEACHERS = {
    "mobile_sam": "MobileSAM, Apache-2.0",
    "lite_medsam": "LiteMedSAM, Apache-2.0; it may have been trained on public data sets with terms of their own",
    "sam_vit_b": "SAM, Apache-2.0",
    "sam_vit_l": "SAM, Apache-2.0",
    "sam_vit_h": "SAM, Apache-2.0",
    "medsam_vit_b": "MedSAM, Apache-2.0; it was trained on public data sets with terms of their own",
    "sam2_hiera_tiny": "SAM 2.1, Apache-2.0",
    "sam2_hiera_small": "SAM 2.1, Apache-2.0",
    "sam2_hiera_base_plus": "SAM 2.1, Apache-2.0",
    "sam2_hiera_large": "SAM 2.1, Apache-2.0",
    "medsam2": "MedSAM2, terms of its page (research and education); trained on data sets with terms of their own",
    "sam3": "SAM 3, SAM License of Meta, which is passed on with what is derived from it",
    "dinov2_small": "DINOv2, Apache-2.0",
    "dinov2_base": "DINOv2, Apache-2.0",
    "dinov2_large": "DINOv2, Apache-2.0",
    "dinov3_small": "DINOv3, DINOv3 License of Meta, which is passed on with what is derived from it",
    "dinov3_base": "DINOv3, DINOv3 License of Meta, which is passed on with what is derived from it",
    "dinov3_large": "DINOv3, DINOv3 License of Meta, which is passed on with what is derived from it",
    "c_radio_v4_h": "C-RADIO v4, licence of NVIDIA as its page states it",
}

_LICENSE = Template(
    """The weights in models/ were trained on the data set "$name" ($source).
Licence of the data: $licence.
$teacher
What may be done with the weights is what all of these allow together; docs/data_license.txt has the particulars.

The files in configs/ and docs/ are part of tskd, and under the Apache License 2.0
(https://www.apache.org/licenses/LICENSE-2.0).
"""
)
_CONSEQUENCES = {
    "cc-by-nc": "No commercial use of the data, or of what is derived from them.",
    "cc-by-nc-sa": "No commercial use; what is derived from the data is passed on under the same licence.",
    "cc-by-nc-nd": "No commercial use, and nothing derived from the data is passed on: the weights stay here.",
    "cc-by-sa": "What is derived from the data is passed on under the same licence.",
    "cc-by": "The data's authors have to be named.",
    "cc0": "The data's authors ask for nothing.",
}


def data_licence(dataset: Mapping[str, Any]) -> str:
    """Return the licence that a dataset.json states, or "not stated"."""
    return str(dataset.get("provenance", {}).get("licence") or UNKNOWN)


def front_matter(dataset: Mapping[str, Any], tags: list[str], task: str = "image-segmentation") -> str:
    """Return the head of a model card, in YAML as the Hugging Face hub reads it.

    Args:
        dataset: a dataset.json.
        tags: more than those that every model has.
        task: one of the hub's pipeline tags.
    """
    licence = data_licence(dataset)
    card: dict[str, Any] = {"license": SPDX.get(licence, "other")}
    if card["license"] == "other":
        card |= {"license_name": licence.lower().replace(" ", "-"), "license_link": "LICENSE"}
    card |= {
        "library_name": "monai",
        "pipeline_tag": task,
        "tags": ["monai", "medical", task, "knowledge-distillation", *tags],
    }
    return f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n\n"


def first_weights(versions: Mapping[str, Any]) -> str:
    """Return published weights that a student's own network began with, and their licence; "" for none.

    Args:
        versions: a run's versions.json.
    """
    configs, settings = versions.get("config", []), versions.get("settings", {})
    if "imagenet.json" in configs:
        return "a published ViT-Tiny trained on ImageNet, licence of its owner"
    if "lite_unet.json" in configs and settings.get("encoder_weights") != "random":
        return "EfficientNet-Lite0 trained on ImageNet, Apache-2.0"
    return ""


def write_terms(draft: Path, dataset: Mapping[str, Any], teacher: str | None, first: str = "") -> None:
    """Write LICENSE and docs/data_license.txt of a shipped model.

    Args:
        draft: the shipped folder.
        dataset: dataset.json of the training.
        teacher: foundation model of its teacher such as "mobile_sam", "" for none, None where that is not known.
        first: what its own network began with, as `first_weights` says.
    """
    licence, provenance = data_licence(dataset), dataset.get("provenance", {})
    if teacher is None:
        said = "Whether a teacher taught it, and with which weights, is not recorded."
    elif teacher:
        said = f"Weights of its teacher: {TEACHERS.get(teacher, teacher + ', licence of its owner')}."
    else:
        said = "No teacher taught it." if first else "No other weights were used."
    said += f"\nIts own network began with {first}." if first else ""
    text = _LICENSE.substitute(
        name=dataset["name"], source=provenance.get("source", "source not stated"), licence=licence, teacher=said
    )
    (draft / "LICENSE").write_text(text, encoding="utf-8")
    spdx = SPDX.get(licence, "")
    means = next((words for name, words in _CONSEQUENCES.items() if spdx.rpartition("-")[0] == name), None)
    if spdx in ("apache-2.0", "mit"):
        means = "The licence's text has to be passed on with what is derived from the data."
    (draft / "docs" / "data_license.txt").write_text(
        f"Data set: {dataset['name']}\nSource: {provenance.get('source', 'not stated')}\nLicence: {licence}\n"
        + (means or "Ask the owner of the images before you pass these weights on.")
        + f"\n\n{said}\n",
        encoding="utf-8",
    )
