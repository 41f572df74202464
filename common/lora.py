"""LoRA on the image encoder of a prompt-free SAM, through peft.

Follows LoRA (Hu et al., arXiv 2106.09685) as SAMed applies it to SAM (Zhang & Liu, arXiv 2304.13785): adapters on the
q and v projections of the image encoder, mask decoder and no-prompt embedding trained in full. The encoders fuse q, k
and v into one linear layer; that layer is split into three exact ones for training and fused back on merging.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from common.errors import TskdError
from common.networks import PromptFreeSam
from common.state import misfits

logger = logging.getLogger(__name__)

PROJECTIONS = ("q", "k", "v")


class SplitQKV(nn.Module):
    """Three linear layers that together equal one fused qkv layer.

    Args:
        fused: linear layer from C to 3 * C features.
        num_heads: None where the fused output is [q, k, v], each over all heads (SAM's ViT); the number of heads where
            it is, head by head, the [q, k, v] of that head (TinyViT).

    Shape:
        B x ... x C -> B x ... x 3C, in the layout of `fused`.
    """

    def __init__(self, fused: nn.Linear, num_heads: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        size = fused.out_features // 3
        for name, rows in zip(PROJECTIONS, self._rows(fused.out_features), strict=True):
            linear = nn.Linear(fused.in_features, size, bias=fused.bias is not None)
            linear = linear.to(fused.weight.device, fused.weight.dtype)
            linear.weight.data.copy_(fused.weight.data[rows])
            if fused.bias is not None:
                linear.bias.data.copy_(fused.bias.data[rows])
            self.add_module(name, linear)

    def _rows(self, out_features: int) -> Tensor:
        """3 x C indices: rows of the fused weight that make up q, k and v."""
        heads = self.num_heads or 1
        return torch.arange(out_features).reshape(heads, 3, -1).transpose(0, 1).reshape(3, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the three layers; returns their outputs in the fused layout."""
        heads = self.num_heads or 1
        parts = [getattr(self, name)(x).unflatten(-1, (heads, -1)) for name in PROJECTIONS]
        return torch.stack(parts, dim=-2).flatten(-3)

    def fuse(self) -> nn.Linear:
        """The fused layer with the present weights."""
        layers = [getattr(self, name) for name in PROJECTIONS]
        size, bias = layers[0].out_features, layers[0].bias is not None
        fused = nn.Linear(layers[0].in_features, 3 * size, bias=bias).to(
            layers[0].weight.device, layers[0].weight.dtype
        )
        for layer, rows in zip(layers, self._rows(3 * size), strict=True):
            fused.weight.data[rows] = layer.weight.data
            if bias:
                fused.bias.data[rows] = layer.bias.data
        return fused


def _attentions(encoder: nn.Module) -> list[tuple[str, Any]]:
    """(name, module) of every attention with a (fused or split) qkv layer, first block first."""
    return [(name, module) for name, module in encoder.named_modules() if hasattr(module, "qkv")]


def split_qkv(encoder: nn.Module) -> nn.Module:
    """Replaces every fused qkv layer of `encoder` in place by a `SplitQKV`; returns `encoder`."""
    for _, attention in _attentions(encoder):
        if isinstance(attention.qkv, nn.Linear):
            head_by_head = hasattr(attention, "attention_biases")
            attention.qkv = SplitQKV(attention.qkv, attention.num_heads if head_by_head else None)
    return encoder


def fuse_qkv(encoder: nn.Module) -> nn.Module:
    """Inverse of `split_qkv`, in place; returns `encoder`."""
    for _, attention in _attentions(encoder):
        if isinstance(attention.qkv, SplitQKV):
            attention.qkv = attention.qkv.fuse()
    return encoder


def _target_names(encoder: nn.Module, targets: Sequence[str], blocks: int | str) -> list[str]:
    """Full names of the linear layers in `encoder` that receive an adapter."""
    unknown = sorted(set(targets) - {*PROJECTIONS, "proj", "mlp"})
    if unknown or not targets:
        raise TskdError(f"lora targets: expected some of q, k, v, proj, mlp, found {unknown or 'none'}")
    attentions = _attentions(encoder)
    if blocks != "all":
        if not isinstance(blocks, int) or not 0 < blocks <= len(attentions):
            raise TskdError(f"lora blocks: expected 'all' or 1 to {len(attentions)} (the last n), found {blocks!r}")
        attentions = attentions[-blocks:]
    names = []
    for name, _ in attentions:
        names += [f"{name}.qkv.{target}" for target in targets if target in PROJECTIONS]
        names += [f"{name}.proj"] if "proj" in targets else []
        if "mlp" in targets:
            parent = name.rpartition(".")[0]
            mlp = encoder.get_submodule(f"{parent}.mlp")
            names += [f"{parent}.mlp.{sub}" for sub, module in mlp.named_modules() if isinstance(module, nn.Linear)]
    return names


def prepare_fine_tuning(
    network: PromptFreeSam,
    mode: str = "lora",
    rank: int = 4,
    alpha: int = 4,
    targets: Sequence[str] = ("q", "v"),
    blocks: int | str = "all",
    dropout: float = 0.0,
    use_rslora: bool = False,
    use_dora: bool = False,
    init: bool | Literal["pissa"] = True,
    train_neck: bool = False,
) -> PromptFreeSam:
    """Makes a prompt-free SAM ready for fine-tuning, in place, and returns it.

    Args:
        network: the foundation model with its pretrained weights.
        mode: "lora" (adapters in the encoder), "decoder" (encoder frozen) or "full" (all but the unused IoU head).
        rank: rank r of the adapters.
        alpha: the adapters' output is scaled by alpha / r (alpha / sqrt(r) with `use_rslora`).
        targets: projections with an adapter, out of q, k, v, proj, mlp.
        blocks: "all", or n for the last n transformer blocks only; backpropagation then stops before the earlier ones.
        dropout: dropout on the adapters' input.
        use_rslora: rank-stabilised scaling (arXiv 2312.03732).
        use_dora: weight-decomposed adapters (arXiv 2402.09353).
        init: True for LoRA's own initialisation (the adapted network starts equal to the pretrained one), or "pissa".
        train_neck: also trains the encoder's neck in full ("lora" only).

    Raises:
        TskdError: for an unknown mode, target or number of blocks.
    """
    if mode not in ("lora", "decoder", "full"):
        raise TskdError(f"fine-tuning mode: expected lora, decoder or full, found {mode!r}")
    network.requires_grad_(True)
    network.mask_decoder.iou_prediction_head.requires_grad_(False)
    if mode == "full":
        return network
    network.image_encoder.requires_grad_(False)
    if mode == "lora":
        encoder: Any = split_qkv(network.image_encoder)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=_target_names(encoder, targets, blocks),
            lora_dropout=dropout,
            use_rslora=use_rslora,
            use_dora=use_dora,
            init_lora_weights=init,
        )
        network.image_encoder = get_peft_model(encoder, config)  # type: ignore[assignment]
        if train_neck:
            encoder.neck.requires_grad_(True)
    logger.info("trainable parameters\n%s", trainable_table(network))
    return network


def trainable_table(network: nn.Module) -> str:
    """One line a part: trainable and total parameters."""
    lines = []
    for name, part in [*network.named_children(), ("total", network)]:
        total = sum(p.numel() for p in part.parameters())
        trainable = sum(p.numel() for p in part.parameters() if p.requires_grad)
        if total:
            lines.append(f"  {name:<24}{trainable:>12,} of {total:>12,}  {trainable / total:7.2%}")
    return "\n".join(lines)


def merged(network: PromptFreeSam) -> PromptFreeSam:
    """Copy of a fine-tuned network in the stock architecture, adapters merged into the weights and qkv fused."""
    network = copy.deepcopy(network)
    if isinstance(network.image_encoder, PeftModel):
        network.image_encoder = fuse_qkv(network.image_encoder.merge_and_unload())  # type: ignore[assignment]
    return network.requires_grad_(False)


def save_adapter(network: PromptFreeSam, folder: str | Path) -> None:
    """Writes the adapters (if any) in peft's layout; all else that was trained is in the merged weights only."""
    if isinstance(network.image_encoder, PeftModel):
        network.image_encoder.save_pretrained(str(folder))


def load_adapter(encoder: nn.Module, folder: str | Path) -> PeftModel:
    """Puts saved adapters, frozen, on a freshly loaded stock encoder.

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
    own, found = get_peft_model_state_dict(model, save_embedding_layers=False), load_file(weights)
    if wrong := misfits(own, found):
        raise TskdError(f"{weights} does not fit the encoder: {'; '.join(wrong)}")
    set_peft_model_state_dict(model, found)
    return model.requires_grad_(False)


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
        """Name -> tensor of every trainable parameter."""
        return {name: value.detach() for name, value in self._trainable().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores `state_dict`; a ValueError names each missing, unexpected or differently shaped parameter."""
        own = self._trainable()
        if wrong := misfits(own, state):
            raise ValueError("; ".join(wrong))
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])
