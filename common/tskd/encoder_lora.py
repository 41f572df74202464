"""Fine-tuning of a teacher of any kind: SAM with its mask decoder, or an encoder of transformers with its head."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, get_peft_model

from tskd import lora
from tskd.errors import TskdError
from tskd.networks import PromptFreeSam, PyramidTeacher, Teacher
from tskd.networks.qkv import PROJECTIONS, adaptable_layers, split_qkv

logger = logging.getLogger(__name__)
_INITS: dict[str, Any] = {"default": True, "pissa": "pissa"}  # in peft's words


def prepare_teacher(
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
        mode: "lora" (adapters in the encoder), "decoder" (encoder frozen; the head alone is trained) or "full".
        rank: as all that follow, as `tskd.lora.prepare_fine_tuning` takes them.
        alpha: numerator of the adapters' scale.
        targets: projections with an adapter.
        blocks: "all", or n for the last n attention blocks.
        dropout: dropout on the adapters' input.
        use_rslora: rank-stabilised scaling.
        use_dora: weight-decomposed adapters.
        init: "default" or "pissa".
        train_neck: also trains the encoder's neck in full, where it has one.

    Raises:
        TskdError: as `prepare_fine_tuning`, or a neck where there is none.
    """
    more: dict[str, Any] = {"dropout": dropout, "use_rslora": use_rslora, "use_dora": use_dora, "init": init}
    if isinstance(network, PromptFreeSam):
        return lora.prepare_fine_tuning(network, mode, rank, alpha, targets, blocks, train_neck=train_neck, **more)
    if mode not in ("lora", "decoder", "full"):
        raise TskdError(f"fine-tuning mode: expected lora, decoder or full, found {mode!r}")
    if mode == "lora" and (not isinstance(rank, int) or rank < 1):
        raise TskdError(f"lora rank: expected 1, 2, ..., found {rank!r}. To train the head alone: mode decoder")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise TskdError(f"lora dropout: expected a number from 0 to below 1, found {dropout!r}")
    if init not in _INITS:
        raise TskdError(f"lora init: expected {' or '.join(_INITS)}, found {init!r}")
    if train_neck and not (mode == "lora" and hasattr(network.image_encoder, "neck")):
        raise TskdError(f"train_neck: expected false with mode {mode} of {network.vfm}, or an encoder with a neck")
    network.requires_grad_(True)
    network.image_encoder.requires_grad_(mode == "full")
    if mode == "lora":
        encoder: Any = split_qkv(network.image_encoder)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=_target_names(network, targets, blocks),
            lora_dropout=dropout,
            use_rslora=use_rslora,
            use_dora=use_dora,
            init_lora_weights=_INITS[init],
            modules_to_save=["neck"] if train_neck else None,
        )
        network.image_encoder = get_peft_model(encoder, config)
        if hasattr(encoder, "disable_input_require_grads"):  # see `tskd.lora`
            encoder.disable_input_require_grads()
    logger.info("trainable parameters\n%s", lora.trainable_table(network))
    return network


def _target_names(network: PyramidTeacher, targets: str | Sequence[str], blocks: int | str) -> list[str]:
    """Return the full names of the linear layers in the encoder that receive an adapter."""
    wanted = [targets] if isinstance(targets, str) else list(targets)
    known = (*PROJECTIONS, "proj", "mlp")
    if (unknown := sorted(set(wanted) - set(known))) or not wanted:
        raise TskdError(f"lora targets: expected some of {', '.join(known)}, found {unknown or 'none'}")
    chosen = adaptable_layers(network.image_encoder)
    if blocks != "all":
        if not isinstance(blocks, int) or not 0 < blocks <= len(chosen):
            raise TskdError(f"lora blocks: expected 'all' or 1 to {len(chosen)} (the last n), found {blocks!r}")
        chosen = chosen[-blocks:]
    return [name for layers in chosen for target in known if target in wanted for name in layers[target]]
