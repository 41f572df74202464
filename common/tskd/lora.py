"""LoRA on a teacher's image encoder, through peft.

Follows LoRA (Hu et al., arXiv 2106.09685) as SAMed applies it to SAM (Zhang & Liu, arXiv 2304.13785): adapters on the
q and v projections of the image encoder, mask decoder and no-prompt embedding trained in full. The encoders' fused qkv
layer is split into three exact ones for training and fused back on merging.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from tskd.data import fingerprint
from tskd.errors import TskdError
from tskd.networks import PromptFreeSam, Teacher, read_checkpoint
from tskd.networks.qkv import PROJECTIONS, adaptable_layers, fuse_qkv, split_qkv
from tskd.state import mismatches, save_weights

logger = logging.getLogger(__name__)
_COMPUTED = ("pos_embed", "rel_pos", ".base_layer.")  # in names of parameters
_INITS: dict[str, Any] = {"default": True, "pissa": "pissa"}  # in peft's words


def prepare_fine_tuning(
    network: Teacher,
    mode: str = "lora",
    rank: int = 4,
    alpha: int = 4,
    targets: str | Sequence[str] = ("q", "v"),
    blocks: int | str = "all",
    dropout: float = 0.0,
    use_rslora: bool = False,
    use_dora: bool = False,
    init: str = "default",
    train_neck: bool = False,
) -> Teacher:
    """Prepare a teacher for fine-tuning, in place, and return it.

    Args:
        network: the foundation model with its pretrained weights.
        mode: "lora" (adapters in the encoder), "decoder" (encoder frozen; a light head is one, too) or "full" (all but
            SAM's unused IoU head).
        rank: rank r of the adapters.
        alpha: the adapters' output is scaled by alpha / r (alpha / sqrt(r) with `use_rslora`).
        targets: projections with an adapter, one or several of q, k, v, proj, mlp.
        blocks: "all", or n for the last n transformer blocks only; backpropagation then stops before the earlier ones.
        dropout: dropout on the adapters' input.
        use_rslora: rank-stabilised scaling (arXiv 2312.03732).
        use_dora: weight-decomposed adapters (arXiv 2402.09353).
        init: "default" for LoRA's own initialisation (B is zero), or "pissa" (principal singular vectors, arXiv
            2404.02948); the adapted network starts equal to the pretrained one with both.
        train_neck: also trains the encoder's neck in full ("lora" only); the neck is then part of the saved adapter.

    Raises:
        TskdError: for an unknown mode, target or initialisation, or a rank, dropout, number of blocks or neck that
            cannot be.
    """
    if mode not in ("lora", "decoder", "full"):
        raise TskdError(f"fine-tuning mode: expected lora, decoder or full, found {mode!r}")
    if not isinstance(rank, int) or rank < 1:
        raise TskdError(f"lora rank: expected 1, 2, ..., found {rank!r}. To train the mask decoder alone: mode decoder")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise TskdError(f"lora dropout: expected a number from 0 to below 1, found {dropout!r}")
    if train_neck and mode != "lora":
        raise TskdError(f"train_neck: expected false with mode {mode}, which leaves the neck as it leaves the encoder")
    if train_neck and not hasattr(network.image_encoder, "neck"):
        raise TskdError(f"train_neck: expected an encoder with a neck, found {type(network.image_encoder).__name__}")
    if init not in _INITS:
        raise TskdError(f"lora init: expected {' or '.join(_INITS)}, found {init!r}")
    network.requires_grad_(True)
    if isinstance(network, PromptFreeSam):
        network.mask_decoder.iou_prediction_head.requires_grad_(False)
    network.image_encoder.requires_grad_(mode == "full")
    if mode == "lora":
        encoder: Any = split_qkv(network.image_encoder)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=_target_names(encoder, targets, blocks),
            lora_dropout=dropout,
            use_rslora=use_rslora,
            use_dora=use_dora,
            init_lora_weights=_INITS[init],
            modules_to_save=["neck"] if train_neck else None,
        )
        network.image_encoder = get_peft_model(encoder, config)  # type: ignore[assignment]
        if hasattr(encoder, "disable_input_require_grads"):  # peft asks for the gradient of the embedded image as soon
            encoder.disable_input_require_grads()  # as blocks are checkpointed, and no block would be left out
    logger.info("trainable parameters\n%s", trainable_table(network))
    return network


def _target_names(encoder: nn.Module, targets: str | Sequence[str], blocks: int | str) -> list[str]:
    """Return the full names of the linear layers in `encoder` that receive an adapter."""
    wanted, known = [targets] if isinstance(targets, str) else list(targets), (*PROJECTIONS, "proj", "mlp")
    if (unknown := sorted(set(wanted) - set(known))) or not wanted:
        raise TskdError(f"lora targets: expected some of {', '.join(known)}, found {unknown or 'none'}")
    chosen = adaptable_layers(encoder)
    if blocks != "all":
        if not isinstance(blocks, int) or not 0 < blocks <= len(chosen):
            raise TskdError(f"lora blocks: expected 'all' or 1 to {len(chosen)} (the last n), found {blocks!r}")
        chosen = chosen[-blocks:]
    return [name for layers in chosen for target in known if target in wanted for name in layers[target]]


def trainable_table(network: nn.Module) -> str:
    """Return one line a part of the network: trainable and all parameters, and the trainable share."""
    counts: dict[str, list[int]] = {}
    for name, parameter in network.named_parameters():
        for part in (_part(name), "total"):
            count = counts.setdefault(part, [0, 0])
            count[0] += parameter.numel() * parameter.requires_grad
            count[1] += parameter.numel()
    counts["total"] = counts.pop("total", [0, 0])  # last
    return "\n".join(
        f"  {part:<24}{trainable:>12,} of {total:>12,}  {trainable / max(total, 1):7.2%}"
        for part, (trainable, total) in counts.items()
    )


def _part(name: str) -> str:
    if not name.startswith("image_encoder."):
        return name.split(".")[0]
    if ".lora_" in name:
        return "image_encoder adapters"
    return "image_encoder neck" if ".neck." in f".{name}" else "image_encoder"


def merged(network: Teacher) -> Teacher:
    """Copy a fine-tuned network to the stock architecture, adapters merged into the weights and qkv fused.

    The copy is on the CPU: there the adapters' product is exact in float32, while a GPU may compute it in TF32.
    """
    network = copy.deepcopy(network).cpu()
    if isinstance(network.image_encoder, PeftModel):
        network.image_encoder = fuse_qkv(network.image_encoder.merge_and_unload())  # type: ignore[assignment]
    return network.requires_grad_(False)


def export_teacher(network: Teacher, model_file: str | Path) -> None:
    """Write what a fine-tuned teacher is used by: merged weights in `model_file`, the adapter in `adapter/` beside it.

    Raises:
        TskdError: when the weights cannot be written.
    """
    save_weights(merged(network), model_file)
    save_adapter(network, Path(model_file).parent / "adapter")


def save_adapter(network: Teacher, folder: str | Path) -> None:
    """Write the adapters, with the neck if it is trained, in peft's layout, in place of what the folder held.

    A network without adapters has none to write: the folder of an earlier one is removed. The mask decoder and the
    no-prompt embedding are no part of the encoder: they are in the merged weights only.
    """
    folder = Path(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}")
    if isinstance(network.image_encoder, PeftModel):
        network.image_encoder.save_pretrained(str(new))
    shutil.rmtree(folder, ignore_errors=True)
    if new.is_dir():
        os.replace(new, folder)


def load_adapter(encoder: nn.Module, folder: str | Path) -> PeftModel:
    """Put saved adapters, frozen, on a freshly loaded stock encoder.

    Raises:
        TskdError: naming every adapter weight that the folder lacks, has too many or in another shape.
    """
    folder = Path(folder)
    weights = folder / "adapter_model.safetensors"
    for file in (folder / "adapter_config.json", weights):
        if not file.is_file():
            raise TskdError(f"{folder}: expected a peft adapter folder with {file.name}, found none")
    config = LoraConfig.from_pretrained(str(folder))
    try:
        model = get_peft_model(split_qkv(encoder), config, autocast_adapter_dtype=False)
    except ValueError as error:  # layers that the encoder does not have
        raise TskdError(f"{folder} does not fit the encoder: {error}") from error
    expected, state = get_peft_model_state_dict(model, save_embedding_layers=False), read_checkpoint(weights)
    if wrong := mismatches(expected, state):
        raise TskdError(f"{weights} does not fit the encoder: {'; '.join(wrong)}")
    set_peft_model_state_dict(model, state)
    return model.requires_grad_(False)


def frozen_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of the frozen parameters: the foundation model that a checkpoint without them belongs to.

    Those that are computed on loading (interpolated positions, what PiSSA leaves of a layer) are left out: other
    processors round them differently.
    """
    digest = hashlib.sha256()
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad and not any(part in name for part in _COMPUTED):
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def training_fingerprints(dataset_file: str | Path, network: nn.Module) -> dict[str, str]:
    """Return what identifies the files of a teacher's training: dataset.json, and the weights that stay frozen."""
    return {"dataset": fingerprint(dataset_file), "frozen_weights": frozen_sha256(network)}


class TrainableState:
    """State of the trainable parameters only, for checkpoints that do not repeat the frozen foundation model.

    Args:
        network: network after `prepare_fine_tuning`.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}

    def state_dict(self) -> dict[str, Tensor]:
        """Return name -> tensor of every trainable parameter."""
        return {name: value.detach() for name, value in self._trainable().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`; a ValueError names each missing, unexpected or differently shaped parameter."""
        parameters = self._trainable()
        if wrong := mismatches(parameters, state):
            raise ValueError("; ".join(wrong))
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(state[name])
