"""Adapt a ViT to another image size: interpolate its position embeddings, keep all other weights."""

import copy
import re
from collections.abc import Sequence
from typing import TypeAlias, cast

import torch.nn.functional as F
from torch import nn
from transformers.models.sam.modeling_sam import SamVisionEncoder

from tskd.errors import TskdError
from tskd.networks.conversion import State
from tskd.networks.encoders.pyramid_teacher import PyramidTeacher
from tskd.networks.sam import PromptFreeSam

Teacher: TypeAlias = PromptFreeSam | PyramidTeacher

_RELATIVE_POSITION = re.compile(r"image_encoder\.layers\.(\d+)\.attn\.rel_pos_[hw]")


def resize_positions(state: State, expected: State, global_layers: Sequence[int]) -> State:
    """Interpolate a ViT's position embeddings to the shapes that a network of another image size expects.

    Bicubic for the absolute ones, linear for the relative ones of global attention, as SAM itself does; an embedding
    that has its shape already is unchanged, and one of another kind is left for the comparison of shapes.

    Args:
        state: weights with the names of `PromptFreeSam`.
        expected: state dict of the network to fill.
        global_layers: indices of the layers with global attention; windows are never stretched.
    """
    result = dict(state)
    for key, value in state.items():
        target = expected.get(key)
        if target is None or value.shape == target.shape or value.ndim != target.ndim:
            continue
        layer = _RELATIVE_POSITION.fullmatch(key)
        if key == "image_encoder.pos_embed" and value.shape[-1] == target.shape[-1]:
            grid = value.permute(0, 3, 1, 2)  # 1 x C x h x w
            grid = F.interpolate(grid, target.shape[1:3], mode="bicubic", align_corners=False)
            result[key] = grid.permute(0, 2, 3, 1)
        elif layer and int(layer[1]) in global_layers and value.shape[-1] == target.shape[-1]:
            result[key] = F.interpolate(value.T[None], len(target), mode="linear")[0].T
    return result


def at_size(network: Teacher, image_size: int) -> Teacher:
    """Return the network for images of another size: itself where it takes any, else a copy with resized positions.

    Args:
        network: network in the stock architecture (adapters merged).
        image_size: side of the square image in pixels, a multiple of the stride.

    Raises:
        TskdError: an encoder that cannot be resized.
    """
    if network.any_size or image_size == network.image_size:
        return network
    if isinstance(network, PyramidTeacher):
        raise TskdError(f"{network.vfm}: answers for images of {network.image_size} px only; leave out tta's scales")
    encoder_before = cast(SamVisionEncoder, network.image_encoder)
    config = copy.deepcopy(encoder_before.config)
    config.image_size = image_size
    encoder: nn.Module = SamVisionEncoder(config)
    encoder.to(network.pixel_mean.device, network.pixel_mean.dtype)
    expected, state = (
        {f"image_encoder.{k}": v for k, v in module.state_dict().items()} for module in (encoder, encoder_before)
    )
    state = resize_positions(state, expected, config.global_attn_indexes)
    encoder.load_state_dict({key.removeprefix("image_encoder."): value for key, value in state.items()})
    # a copy of all but the encoder, with the new one in its place
    resized = copy.deepcopy(network, {id(encoder_before): encoder})
    resized.image_size = image_size
    return resized.train(network.training)
