"""Augmentation by kind of image: what may happen to an image of this modality without becoming another anatomy."""

from __future__ import annotations

import logging
import re
from typing import Any

from tskd.distillation.augmentation import BatchAugmentation
from tskd.errors import TskdError

logger = logging.getLogger(__name__)

# No mirror image where left and right organs differ (liver and spleen, heart, the chambers in an echocardiogram).
PRESETS: dict[str, dict[str, float]] = {
    "mr": {
        "rotate": 20, "scale": 0.25, "translate": 0.08, "shear": 0.05, "elastic": 0.06, "flip": 0, "flip_y": 0,
        "gamma": 0.6, "brightness": 0.15, "contrast": 0.2, "noise": 0.05, "blur": 0.2, "low_resolution": 0.2,
    },
    "ct": {
        "rotate": 20, "scale": 0.25, "translate": 0.08, "shear": 0.05, "elastic": 0.06, "flip": 0, "flip_y": 0,
        "gamma": 0.3, "brightness": 0.1, "contrast": 0.15, "noise": 0.05, "blur": 0.2, "low_resolution": 0.2,
    },
    "ultrasound": {
        "rotate": 15, "scale": 0.25, "translate": 0.1, "shear": 0.05, "elastic": 0.04, "flip": 0, "flip_y": 0,
        "gamma": 0.5, "brightness": 0.15, "contrast": 0.3, "noise": 0.06, "blur": 0.2, "low_resolution": 0.2,
    },
    "dermoscopy": {
        "rotate": 180, "scale": 0.35, "translate": 0.1, "shear": 0.1, "flip": 0.5, "flip_y": 0.5, "gamma": 0.3,
        "brightness": 0.2, "contrast": 0.25, "saturation": 0.3, "colour": 0.1, "noise": 0.03, "blur": 0.2,
    },
    "fundus": {
        "rotate": 180, "scale": 0.2, "translate": 0.05, "shear": 0.05, "flip": 0.5, "flip_y": 0.5, "gamma": 0.3,
        "brightness": 0.15, "contrast": 0.3, "saturation": 0.2, "colour": 0.1, "noise": 0.03, "blur": 0.1,
    },
    "xray": {
        "rotate": 10, "scale": 0.2, "translate": 0.08, "shear": 0.03, "flip": 0, "flip_y": 0, "gamma": 0.4,
        "brightness": 0.15, "contrast": 0.3, "noise": 0.04, "blur": 0.1, "low_resolution": 0.1,
    },
    "plain": {"rotate": 15, "scale": 0.15, "flip": 0, "flip_y": 0},
}  # fmt: skip

_MODALITIES = {
    "mr": r"\bmri?\b|magnetic resonance",
    "ct": r"\bct\b|computed tomography",
    "ultrasound": r"\bus\b|ultraso|sonogra|echocardio",
    "dermoscopy": r"dermo|dermat|skin",
    "fundus": r"fundus|retina",
    "xray": r"\bx-? ?ray|radiogra|mammogra|\b(xr|cr|dx|mg)\b",
}


def preset_of(modality: str) -> str:
    """Return the preset for dataset.json's `modality` (free text such as MR or fundus photography), or a preset's name.

    What is none of those known is "plain": small rotation and zoom, no flip, no colour.
    """
    text = modality.strip().lower().replace("_", " ")
    if text in PRESETS:
        return text
    for name, pattern in _MODALITIES.items():
        if re.search(pattern, text):
            return name
    logger.info("modality %r: no augmentation preset; the plain one is used (choose: %s)", modality, ", ".join(PRESETS))
    return "plain"


def preset_augmentation(modality: str, **changes: float | None) -> BatchAugmentation:
    """Return the augmentation for a kind of image.

    Args:
        modality: as `preset_of` takes it.
        changes: arguments of `BatchAugmentation` that are to have another value than the preset's; None keeps it.

    Raises:
        TskdError: for a change of something that the augmentation does not have.
    """
    given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    known = BatchAugmentation.__init__.__annotations__.keys() - {"return"}
    if unknown := sorted(given.keys() - known):
        raise TskdError(f"augmentation: expected {', '.join(sorted(known))}, found {', '.join(unknown)}")
    return BatchAugmentation(**{**PRESETS[preset_of(modality)], **given})
