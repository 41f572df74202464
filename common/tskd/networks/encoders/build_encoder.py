"""Build a teacher around an encoder of `transformers`, from a name, a folder or a hub id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.networks.encoders.families import ENCODERS, FAMILIES, MODEL_TYPES, NEED_TIMM, PRESETS, Family
from tskd.networks.encoders.pyramid_teacher import PyramidTeacher
from tskd.networks.weight_store import find_weights, is_hub_id


def is_encoder(vfm: str) -> bool:
    """Whether `vfm` names an encoder: one of `ENCODERS`, a folder with config.json, or owner/name@revision.

    Raises:
        TskdError: one that cannot be built without timm.
    """
    _refuse_timm(vfm, vfm)
    return vfm in ENCODERS or Path(vfm).expanduser().is_dir() or is_hub_id(vfm)


def build_encoder_teacher(
    vfm: str, num_classes: int, image_size: int, config: dict[str, Any] | None = None, checkpointing: bool = False
) -> PyramidTeacher:
    """Build the network with random weights.

    Args:
        vfm: one of `ENCODERS`, a folder written by `save_pretrained`, or a hub id with its revision.
        num_classes: classes with the background, at least 2.
        image_size: side of the square image in pixels.
        config: settings of the encoder to change.
        checkpointing: recompute the encoder's blocks in the backward pass.

    Raises:
        TskdError: an encoder of another kind, settings that it does not have, or a size that it does not take.
    """
    family, fields = _family_and_settings(vfm)
    fields = {**fields, **(config or {})}
    if not family.any_size:  # positions and windows are laid out for one size
        fields["backbone_config"] = {**fields.get("backbone_config", {}), "image_size": image_size}
    settings_class = family.config_class()
    known = settings_class().to_dict()
    if unknown := sorted(key for key in config or {} if key not in known):
        raise TskdError(f"{vfm}: config has fields that {settings_class.__name__} has not: {', '.join(unknown)}")
    settings = settings_class(**fields)
    settings._attn_implementation = "sdpa"
    network = PyramidTeacher(vfm, family, family.model_class()(settings), num_classes, image_size)
    if checkpointing:
        network.set_gradient_checkpointing(True)
    return network


def embedding_channels(vfm: str) -> int | None:
    """Return the channels of the embedding that soft labels keep; None for SAM, its kin and unknown names."""
    if not is_encoder(vfm):
        return None
    family, fields = _family_and_settings(vfm)
    return family.channels(family.config_class()(**fields))[-1]


def side_multiple(vfm: str) -> int:
    """Return the pixels that a side of an image for this foundation model is a multiple of; 16 for SAM and its kin."""
    if not is_encoder(vfm):
        return 16
    family, fields = _family_and_settings(vfm)
    return family.multiple(family.config_class()(**fields))


def _family_and_settings(vfm: str) -> tuple[Family, dict[str, Any]]:
    if vfm in PRESETS:
        name, fields = PRESETS[vfm]
        return FAMILIES[name], dict(fields)
    file = find_weights(vfm, "vfm") / "config.json"
    if not file.is_file():
        raise TskdError(f"{file}: expected the settings of an encoder, found no such file. Download the folder again.")
    saved = json.loads(file.read_text(encoding="utf-8"))
    kind = saved.get("model_type")
    _refuse_timm(str(kind), str(file))
    if kind not in MODEL_TYPES:
        raise TskdError(
            f"{file}: expected a model_type among {', '.join(MODEL_TYPES)}, found {kind!r}. Choose another vfm; "
            "folders of SAM and MedSAM are the key `weights` of vfm sam_vit_b, sam_vit_l, sam_vit_h or medsam_vit_b."
        )
    family = FAMILIES[MODEL_TYPES[kind]]
    while isinstance(saved.get("detector_config"), dict):  # SAM 3's video model holds its detector
        saved = saved["detector_config"]
    saved = saved.get(family.vision_key, saved)
    left = ("architectures", "model_type", "transformers_version", "dtype", "torch_dtype", "auto_map")
    return family, {key: value for key, value in saved.items() if key not in left}


def _refuse_timm(kind: str, where: str) -> None:
    if kind in NEED_TIMM:
        raise TskdError(
            f"{where}: expected an encoder that needs neither timm nor torchvision, found EdgeTAM: transformers' "
            "EdgeTamVisionModel builds its RepViT by TimmWrapperModel, which needs timm, and timm torchvision; RepViT "
            "has no q and v for LoRA either. Choose vfm mobile_sam, whose encoder is as small, or sam2_hiera_tiny."
        )
