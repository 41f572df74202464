"""Load ImageNet weights of a vision transformer into MONAI's UNETR, which has no class token and no qkv bias."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.networks.nets import ViT
from torch import Tensor, nn
from torch.nn import functional

from tskd.errors import TskdError
from tskd.networks.conversion import State
from tskd.networks.weight_store import find_weights
from tskd.networks.weights import read_checkpoint
from tskd.state import mismatches

# transformers' ViTModel, as it is saved and as its state dict has it -> timm
_TRANSFORMERS = [
    (r"^vit\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
    (r"\.attention\.(attention\.query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(attention\.key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(attention\.value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
]
# timm -> MONAI
_MONAI = [
    (r"^patch_embed\.proj\.", "patch_embedding.patch_embeddings."),
    (r"^pos_embed$", "patch_embedding.position_embeddings"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
]
_UNUSED = re.compile(r"(cls_token$|head\.|classifier\.|pooler\.)")  # what a segmentation encoder has no use for
_NEVER_RUN = re.compile(r"blocks\.\d+\.norm_cross_attn\.")  # in MONAI's blocks, but without cross-attention not called
# Largest shift of a norm that stands for q's bias: float32 keeps the rest to 1e-4, bfloat16 (8 bits) to some per cent
_LARGEST_SHIFT, _LARGEST_SHIFT_AUTOCAST = 1e3, 8.0
_PATCHES, _POSITIONS = "patch_embedding.patch_embeddings.weight", "patch_embedding.position_embeddings"


def load_vit(
    network: nn.Module,
    weights: str | Path | None,
    encoder: str = "vit",
    pixel_mean: float | Sequence[float] = 0.5,
    pixel_std: float | Sequence[float] = 0.5,
    amp_dtype: str | None = None,
    init_weights: str | Path | None = None,
) -> nn.Module:
    """Fill a network's ViT, in place, with weights that were trained on ImageNet.

    Its patch tokens then are those of the pretrained model without its class token, for an image repeated over the
    colours and normalised as the model had it: that normalisation goes into the patch projection, whose kernels are
    summed over the colours for a grey image. Biases of q, k and v, which UNETR has not, are folded into what surrounds
    them (`fold_qkv_bias`). Positions are interpolated (bicubic, as transformers does). MONAI's norms have an epsilon of
    1e-5 instead of 1e-6 or 1e-12.

    Args:
        network: segmentation network with a 2-D MONAI ViT, such as UNETR.
        weights: `.pth` or `.safetensors` in the layout of timm (`vit_tiny_patch16_224`) or of transformers' `ViTModel`;
            a folder written by `save_pretrained`; or `owner/name@revision` on the Hugging Face hub.
        encoder: name of the ViT in the network.
        pixel_mean: mean that the model's normalisation subtracts from intensities in [0, 1], one or one a colour.
        pixel_std: deviation that it divides by.
        amp_dtype: autocast type that the network is trained in, which limits what is folded; None for float32.
        init_weights: None; weights of the whole network would be lost in part.

    Returns:
        The same network.

    Raises:
        TskdError: nothing usable at `weights`, or keys, shapes or settings that are not the encoder's; biases that
            cannot be folded; or `init_weights`.
    """
    if init_weights is not None:
        raise TskdError(
            f"init_weights: expected None where the encoder begins with encoder_weights, found {init_weights}. Leave "
            "it out, or fine-tune a whole student with train.json alone"
        )
    if weights is None:
        raise TskdError(
            "encoder_weights: expected ImageNet weights (a file, a folder or a hub id owner/name@revision), found None"
        )
    vit = dict(network.named_modules()).get(encoder)
    if not isinstance(vit, ViT) or hasattr(vit, "cls_token"):
        kind = f"{type(network).__name__} without it" if vit is None else type(vit).__name__
        raise TskdError(f"{encoder}: expected a MONAI ViT without class token, found {kind}")
    source = find_weights(weights, f"the ViT {encoder!r}")
    expected = {key: value for key, value in vit.state_dict().items() if not _NEVER_RUN.match(key)}
    _check_settings(vit, source)
    state = to_monai_layout(read_checkpoint(source))
    state = _fit_patch_projection(state, expected[_PATCHES].shape[1], pixel_mean, pixel_std)
    state = _interpolate_positions(state, vit)
    if "blocks.0.attn.qkv.bias" not in expected:
        state = fold_qkv_bias(state, amp_dtype)
    if wrong := mismatches(expected, state):
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise TskdError(
            f"{source} does not fit {type(network).__name__}'s {encoder!r} (in its names): {'; '.join(wrong[:8])}{more}"
        )
    vit.load_state_dict(state, strict=False)  # all but norm_cross_attn, by the comparison above
    return network


def to_monai_layout(state: State) -> State:
    """Rename keys of timm or transformers to MONAI's, q, k and v fused; class token and heads are left out."""
    result: State = {}
    separate: dict[str, State] = {}
    for key, value in state.items():
        for pattern, replacement in (*_TRANSFORMERS, *_MONAI):
            key = re.sub(pattern, replacement, key)
        if _UNUSED.match(key):
            continue
        if match := re.fullmatch(r"(blocks\.\d+\.attn\.)([qkv])\.(weight|bias)", key):
            separate.setdefault(f"{match[1]}qkv.{match[3]}", {})[match[2]] = value
        else:
            result[key] = value
    if _POSITIONS in result and any(re.fullmatch(r"(vit\.embeddings\.|embeddings\.)?cls_token", key) for key in state):
        result[_POSITIONS] = result[_POSITIONS][:, 1:]
    for key, parts in separate.items():
        if len(parts) == 3:
            result[key] = torch.cat([parts[name] for name in "qkv"])
    return result


def fold_qkv_bias(state: State, amp_dtype: str | None = None) -> State:
    """Fold the biases of q, k and v into the layers around them: the same attention, exactly but for rounding.

    A shift d of the norm before makes up for q's bias: W_q d = b_q. It shifts all keys alike, as k's own bias does,
    and the softmax does not see that. It shifts all values alike and with them their weighted mean: that and v's own
    bias go into the output projection's bias.

    Args:
        state: weights under MONAI's names, with qkv biases.
        amp_dtype: autocast type that they are used in, None for float32. The shift is rounded with what it shifts: of a
            large one little else is left in 8 or 11 bits.

    Raises:
        TskdError: where W_q is so nearly singular that there is no such shift of reasonable size.
    """
    largest = _LARGEST_SHIFT if amp_dtype in (None, "float32") else _LARGEST_SHIFT_AUTOCAST
    result = dict(state)
    for key in [key for key in state if re.fullmatch(r"blocks\.\d+\.attn\.qkv\.bias", key)]:
        block = key.removesuffix("attn.qkv.bias")
        norm, output = f"{block}norm1.bias", f"{block}attn.out_proj"
        if not {norm, f"{output}.weight", f"{output}.bias", f"{block}attn.qkv.weight"} <= state.keys():
            continue  # the comparison of keys says what is missing
        query, _, value = state[f"{block}attn.qkv.weight"].double().chunk(3)
        query_bias, _, value_bias = result.pop(key).double().chunk(3)
        shift = torch.linalg.lstsq(query, query_bias[:, None], driver="gelsd").solution[:, 0]
        residual = (query @ shift - query_bias).abs().max()
        if residual > 1e-5 or shift.abs().max() > largest:
            remedy = (
                ""
                if amp_dtype in (None, "float32")
                else f", or train in single precision (--amp_dtype float32 instead of {amp_dtype})"
            )
            raise TskdError(
                f"{key}: q's bias cannot be folded into the norm before (largest shift {float(shift.abs().max()):.1e}, "
                f"expected {largest:g} or less; {float(residual):.1e} left over). Set `network_def#qkv_bias` to True "
                f"in all configs of the bundle{remedy}"
            )
        bias = state[f"{output}.bias"].double() + state[f"{output}.weight"].double() @ (value_bias - value @ shift)
        result[norm] = (state[norm].double() + shift).to(state[norm])
        result[f"{output}.bias"] = bias.to(state[norm])
    return result


def _fit_patch_projection(
    state: State, channels: int, mean: float | Sequence[float], std: float | Sequence[float]
) -> State:
    if _PATCHES not in state or state[_PATCHES].shape[1] != 3:
        return state
    kernel = state[_PATCHES].double()
    per_colour = [torch.as_tensor(value, dtype=kernel.dtype).expand(3)[:, None, None] for value in (mean, std)]
    kernel = kernel / per_colour[1]
    bias = state["patch_embedding.patch_embeddings.bias"].double() - (kernel * per_colour[0]).sum((1, 2, 3))
    if channels == 1:
        kernel = kernel.sum(1, keepdim=True)
    like = state[_PATCHES]
    return {**state, _PATCHES: kernel.to(like), "patch_embedding.patch_embeddings.bias": bias.to(like)}


def _interpolate_positions(state: State, vit: ViT) -> State:
    """Interpolate positions to the ViT's grid, which UNETR keeps nowhere: a square one, as its bundle has it."""
    positions: Tensor | None = state.get(_POSITIONS)
    target = vit.patch_embedding.position_embeddings
    if positions is None or positions.shape == target.shape or positions.shape[-1] != target.shape[-1]:
        return state
    old, new = round(positions.shape[1] ** 0.5), round(target.shape[1] ** 0.5)
    if old**2 != positions.shape[1] or new**2 != target.shape[1]:
        raise TskdError(
            f"position embeddings: expected square grids, found {positions.shape[1]} patches in the file and "
            f"{target.shape[1]} in the network; use a square image size"
        )
    grid = positions.transpose(1, 2).unflatten(2, (old, old))
    grid = functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return {**state, _POSITIONS: grid.flatten(2).transpose(1, 2)}


def _check_settings(vit: ViT, source: Path) -> None:
    """Raise where settings of a `save_pretrained` folder differ that change a ViT's output but no shape."""
    file = source / "config.json"
    if not file.is_file():
        return
    saved = json.loads(file.read_text())
    heads = vit.blocks[0].get_submodule("attn").num_heads
    expected = {"num_attention_heads": heads, "hidden_act": "gelu"}
    wrong = [
        f"{key}: expected {expected[key]}, found {saved[key]}"
        for key in expected
        if saved.get(key, expected[key]) != expected[key]
    ]
    if wrong:
        raise TskdError(f"{file}: not the encoder's settings; {'; '.join(wrong)}")
