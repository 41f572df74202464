"""Load a foundation model's weights into a prompt-free SAM, accounting for every key."""

import json
import re
from pathlib import Path
from typing import overload

import torch
from safetensors.torch import load_file
from torch import Tensor

from tskd.errors import TskdError
from tskd.networks.conversion import State, is_transformers_layout, to_network_layout
from tskd.networks.encoders.build_encoder import is_encoder
from tskd.networks.encoders.encoder_weights import encoder_source, load_encoder
from tskd.networks.encoders.pyramid_teacher import PyramidTeacher
from tskd.networks.resize import resize_positions
from tskd.networks.sam import PromptFreeSam
from tskd.networks.tiny_vit import TinyViT
from tskd.networks.weight_store import default_weights, find_weights

_PER_TOKEN = re.compile(r"(mask_decoder\.output_hypernetworks_mlps\.)(\d+)(\..+)")
_ROW_PER_TOKEN = (
    "mask_decoder.mask_tokens.weight",
    "mask_decoder.iou_prediction_head.proj_out.weight",
    "mask_decoder.iou_prediction_head.proj_out.bias",
)
# Settings that change what a ViT computes without changing a tensor's shape
_SAME_SETTINGS = ("num_attention_heads", "window_size", "global_attn_indexes", "hidden_act", "patch_size")


@overload
def load_pretrained(network: PromptFreeSam, weights: str | Path | None = None) -> PromptFreeSam: ...


@overload
def load_pretrained(network: PyramidTeacher, weights: str | Path | None = None) -> PyramidTeacher: ...


def load_pretrained(
    network: PromptFreeSam | PyramidTeacher, weights: str | Path | None = None
) -> PromptFreeSam | PyramidTeacher:
    """Fill the network in place with pretrained weights.

    SAM's decoder has four mask tokens: 0 for the single mask, 1 to 3 for the three alternatives. Class 0 (background)
    starts from token 0 and class c from token 1 + (c - 1) mod 3, each with its hypernetwork. Position embeddings are
    interpolated to the network's image size: bicubic for the absolute ones, linear for the relative ones of global
    attention (as SAM itself does at another size); at the checkpoint's own size they are unchanged.

    Args:
        network: network built by `build_sam`.
        weights: None for the default source of `network.vfm`; a `.pth` file in the original layout (SAM, MedSAM,
            MobileSAM, LiteMedSAM); a folder written by `transformers.SamModel.save_pretrained`; or
            `owner/name@revision` on the Hugging Face hub.

    Returns:
        The same network.

    Raises:
        TskdError: nothing usable at `weights`, or the checkpoint's keys, shapes or settings are not the network's.
    """
    source = _find_source(network.vfm, weights)
    state = read_checkpoint(source)
    if isinstance(network, PyramidTeacher):
        return load_encoder(network, source, state)
    if source.is_dir():
        _check_settings(network, source)
    if is_transformers_layout(state) and network.any_size:
        raise TskdError(
            f"{source}: these are the weights of a ViT (keys vision_encoder.*), and {network.vfm} is a TinyViT; choose "
            "another vfm or other weights"
        )
    state = to_network_layout(state, vit=not network.any_size)
    state = _mask_token_per_class(state, network.num_classes)
    expected = network.state_dict()
    if network.high_res is not None and not any(key.startswith("high_res.") for key in state):
        state |= {key: value for key, value in expected.items() if key.startswith("high_res.")}  # no model has them
    if not isinstance(network.image_encoder, TinyViT):
        state = resize_positions(state, expected, network.image_encoder.config.global_attn_indexes)
    _check_keys(state, expected, network.vfm, source)
    network.load_state_dict(state, strict=True)
    return network


def pretrained_file(vfm: str, weights: str | Path | None = None) -> Path:
    """Return the file that `load_pretrained` reads (of several parts the first), whose hash identifies the weights.

    Raises:
        TskdError: nothing usable at `weights`.
    """
    source = _find_source(vfm, weights)
    return _weight_files(source)[0] if source.is_dir() else source


def read_checkpoint(path: str | Path) -> State:
    """Read the tensors of a `.pth`, of a `.safetensors`, or of a folder written by `save_pretrained`.

    Raises:
        TskdError: no such file, or a file that holds something else than a dict of tensors.
    """
    path = Path(path)
    if path.is_dir():
        return {key: value for file in _weight_files(path) for key, value in read_checkpoint(file).items()}
    if not path.is_file():
        raise TskdError(f"{path}: expected a file of weights, found none; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises depends on where it stumbles
        raise TskdError(f"{path}: cannot be read as a file of tensors (weights_only): {error}") from error
    for key in ("model", "state_dict"):  # as training scripts save it, beside the optimiser
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TskdError(f"{path}: expected a dict of tensors, found {type(state).__name__} with other things in it")
    return state


def _weight_files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if outside := [part for part in parts if Path(part).name != part or part in ("", "..")]:
                raise TskdError(f"{index}: expected names of files beside it, found {outside[0]!r}. Download it again.")
            return [folder / part for part in parts]
        if (folder / name).is_file():
            return [folder / name]
    raise TskdError(
        f"{folder}: expected model.safetensors (as save_pretrained writes it) or pytorch_model.bin, found neither"
    )


def _find_source(vfm: str, weights: str | Path | None) -> Path:
    if weights is None and is_encoder(vfm):
        return encoder_source(vfm)
    return default_weights(vfm) if weights is None else find_weights(weights, vfm)


def _check_settings(network: PromptFreeSam, folder: Path) -> None:
    file = folder / "config.json"
    if isinstance(network.image_encoder, TinyViT) or not file.is_file():
        return
    saved = json.loads(file.read_text()).get("vision_config", {})
    expected = network.image_encoder.config.to_dict()
    wrong = [
        f"{key}: {saved[key]} in the file, {expected[key]} in the network"
        for key in _SAME_SETTINGS
        if key in saved and saved[key] != expected[key]
    ]
    if wrong:
        raise TskdError(f"{file}: vision_config is not that of {network.vfm}: {'; '.join(wrong)}; choose another vfm")


def _source_token(index: int) -> int:
    """Return the pretrained mask token that class `index` starts from."""
    return 0 if index == 0 else 1 + (index - 1) % 3


def _mask_token_per_class(state: State, num_classes: int) -> State:
    if len(state.get(_ROW_PER_TOKEN[0], ())) != 4:
        return state  # not SAM's tokens; the comparison of keys and shapes decides
    result = {key: value for key, value in state.items() if not _PER_TOKEN.fullmatch(key)}
    tokens = [_source_token(c) for c in range(num_classes)]
    for key in _ROW_PER_TOKEN:
        if key in state:
            result[key] = state[key][tokens]
    for key, value in state.items():
        if match := _PER_TOKEN.fullmatch(key):
            for c in (c for c, token in enumerate(tokens) if token == int(match[2])):
                result[f"{match[1]}{c}{match[3]}"] = value
    return result


def _check_keys(state: State, expected: State, vfm: str, source: Path) -> None:
    problems = []
    if missing := sorted(expected.keys() - state.keys()):
        problems.append("missing: " + _listing(missing))
    if unexpected := sorted(state.keys() - expected.keys()):
        problems.append("unexpected: " + _listing(unexpected))
    wrong = sorted(key for key in expected.keys() & state.keys() if state[key].shape != expected[key].shape)
    if wrong:
        differences = [
            f"{k} {tuple(state[k].shape)} in the file, {tuple(expected[k].shape)} in the network" for k in wrong
        ]
        problems.append("of another shape: " + _listing(differences))
    if problems:
        raise TskdError(
            f"{source} is not a checkpoint of {vfm}; keys (in the network's names) {'; '.join(problems)}. Choose the "
            "vfm that the weights belong to, or other weights"
        )


def _listing(names: list[str], limit: int = 8) -> str:
    num_left_out = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {num_left_out} more" if num_left_out > 0 else "")
