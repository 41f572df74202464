"""Pretrained weights for an encoder of `transformers`, accounting for every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from tskd.errors import TskdError
from tskd.networks.encoders.families import PLACES
from tskd.networks.encoders.pyramid_teacher import PyramidTeacher
from tskd.networks.weight_store import find_weights

State = dict[str, Tensor]

_ORIGINAL_SAM2 = [  # names of Meta's SAM 2 and of MedSAM2 -> those of transformers
    (r"^image_encoder\.trunk\.", "backbone."),
    (r"^image_encoder\.neck\.", "neck."),
    (r"(blocks\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"neck\.convs\.(\d+)\.conv\.", r"neck.convs.\1."),
]


def encoder_source(vfm: str) -> Path:
    """Return where an encoder's weights lie if no others are named: the folder or hub id `vfm` itself.

    Raises:
        TskdError: nothing there, or the name of an encoder, of whose repository no commit is known to be the published
            weights.
    """
    if vfm in PLACES:
        page = f"https://huggingface.co/{PLACES[vfm]}/commits/main"
        form = "the file MedSAM2_latest.pt" if vfm == "medsam2" else f"{PLACES[vfm]}@COMMIT, or a folder with its files"
        raise TskdError(f"{vfm}: expected the key `weights`, found none. Set it to {form} ({page}).")
    return find_weights(vfm, "vfm")


def load_encoder(network: PyramidTeacher, source: Path, state: State) -> PyramidTeacher:
    """Fill the encoder with pretrained weights, in place; the head keeps its random ones.

    Args:
        network: built by `build_encoder_teacher`.
        source: where the weights come from: a file, or a folder written by `save_pretrained`.
        state: its tensors. Names may be those of the encoder alone or of a whole model that holds it (SAM 2, SAM 3), of
            an older version of transformers, or those of Meta's SAM 2 code.

    Raises:
        TskdError: tensors that are missing or of another shape.
    """
    encoder: Any = network.image_encoder
    expected = encoder.state_dict()
    weights = _part(state, expected) or _part(_renamed(state), expected)
    if weights is not None:
        encoder.load_state_dict({key: weights[key].to(expected[key]) for key in expected}, strict=True)
        return network
    wrong = [f"{len(expected)} keys such as {next(iter(expected))}"]
    if source.is_dir():  # transformers knows how names have changed
        loaded, told = type(encoder).from_pretrained(source, config=encoder.config, output_loading_info=True)
        wrong = sorted({*told["missing_keys"], *(str(key) for key in told["mismatched_keys"])})
        if not wrong:
            encoder.load_state_dict(loaded.state_dict(), strict=True)
            return network
    raise TskdError(
        f"{source} is not a checkpoint of {network.vfm}; missing or of another shape: {', '.join(wrong[:8])}"
        f"{f' and {len(wrong) - 8} more' if len(wrong) > 8 else ''}. Choose the vfm that the weights belong to."
    )


def _part(state: State, expected: State) -> State | None:
    """Return the tensors of the encoder from a state that has them under some prefix; None where it has not."""
    anchor = next(key for key in expected if key.count(".") > 1)
    for prefix in (key.removesuffix(anchor) for key in state if key.endswith(anchor)):
        if prefix and not prefix.endswith("."):
            continue
        part = {key: state[prefix + key] for key in expected if prefix + key in state}
        if len(part) == len(expected) and all(part[key].shape == expected[key].shape for key in expected):
            return part
    return None


def _renamed(state: State) -> State:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in _ORIGINAL_SAM2:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed
