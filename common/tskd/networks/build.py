"""Build a prompt-free SAM from its name, without a checkpoint and without a network connection."""

from typing import Any, TypeAlias

from transformers import SamMaskDecoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder

from tskd.errors import TskdError
from tskd.networks.encoders.build_encoder import build_encoder_teacher, is_encoder
from tskd.networks.encoders.families import ENCODERS
from tskd.networks.encoders.pyramid_teacher import PyramidTeacher
from tskd.networks.pixel_scale import IMAGENET, UNIT, PixelScale
from tskd.networks.sam import PromptFreeSam
from tskd.networks.tiny_vit import TinyViT

_VIT_B: dict[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "global_attn_indexes": [2, 5, 8, 11],
}  # fmt: skip
_VIT_L: dict[str, Any] = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "global_attn_indexes": [5, 11, 17, 23],
}  # fmt: skip
_VIT_H: dict[str, Any] = {
    "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "global_attn_indexes": [7, 15, 23, 31],
}  # fmt: skip

_VITS: dict[str, tuple[dict[str, Any], PixelScale]] = {
    "sam_vit_b": (_VIT_B, IMAGENET),
    "sam_vit_l": (_VIT_L, IMAGENET),
    "sam_vit_h": (_VIT_H, IMAGENET),
    "medsam_vit_b": (_VIT_B, UNIT),
}
_TINY_VITS: dict[str, tuple[int, PixelScale]] = {"mobile_sam": (4, IMAGENET), "lite_medsam": (1, UNIT)}

Teacher: TypeAlias = PromptFreeSam | PyramidTeacher
VFMS: tuple[str, ...] = (*_VITS, *_TINY_VITS)


def build_sam(
    vfm: str,
    num_classes: int,
    image_size: int,
    config: dict[str, Any] | None = None,
    gradient_checkpointing: bool = False,
    high_res_features: bool = False,
) -> Teacher:
    """Build the network with random weights; `load_pretrained` fills in the foundation model's.

    Args:
        vfm: foundation model, one of `VFMS` (SAM's encoders with its mask decoder) or of `ENCODERS` (others with a
            light head), a folder that `transformers` has saved an encoder of these families to, or owner/name@revision.
        num_classes: classes with the background, at least 2.
        image_size: side of the square image in pixels; a multiple of 16 (of 4 for lite_medsam).
        config: fields of the encoder's configuration to change, for encoders of `transformers` only.
        gradient_checkpointing: recompute the encoder's blocks in the backward pass, to save memory in training.
        high_res_features: decode at the image's resolution instead of a quarter of it, for thin structures; for SAM's
            encoders of stride 16.

    Returns:
        Network from B x c x image_size x image_size in [0, 1] to logits B x num_classes x image_size x image_size.

    Raises:
        TskdError: unknown name, too few classes, an image size that is no multiple of the stride, or a config that does
            not apply.
    """
    if vfm not in VFMS and not is_encoder(vfm):
        raise TskdError(
            f"unknown foundation model vfm={vfm!r}; choose one of {', '.join((*VFMS, *ENCODERS))}, a folder with an "
            "encoder of transformers, or owner/name@revision"
        )
    if num_classes < 2:
        raise TskdError(f"num_classes must be at least 2 (the background is a class), found {num_classes}")
    if high_res_features and (vfm not in VFMS or vfm == "lite_medsam"):
        raise TskdError(
            f"high_res_features: expected false with vfm={vfm!r}: they are for SAM's mask decoder at stride 16, as in "
            "mobile_sam and sam_vit_b"
        )
    if vfm not in VFMS:
        return build_encoder_teacher(vfm, num_classes, image_size, config, gradient_checkpointing)
    stride = 4 if vfm == "lite_medsam" else 16
    if image_size < stride or image_size % stride:
        raise TskdError(
            f"{vfm}: the image size must be a multiple of the encoder's stride {stride}, found "
            f"{image_size} x {image_size}; choose image_size={max(round(image_size / stride), 1) * stride}"
        )
    encoder: SamVisionEncoder | TinyViT
    if vfm in _TINY_VITS:
        if config:
            raise TskdError(f"{vfm} has no settings to change: leave config out, found config={config!r}")
        patch_stride, scale = _TINY_VITS[vfm]
        encoder, layer_norm_eps = TinyViT(patch_stride), 1e-5
    else:
        fields, scale = _VITS[vfm]
        vision = _vision_config(vfm, {**fields, "image_size": image_size, **(config or {})})
        encoder, layer_norm_eps = SamVisionEncoder(vision), 1e-6
    # transformers' SAM has 1e-6 in the decoder's layer norms where the published code, and so MobileSAM, has 1e-5
    decoder = SamMaskDecoderConfig(num_multimask_outputs=num_classes - 1, layer_norm_eps=layer_norm_eps)
    decoder._attn_implementation = "sdpa"
    network = PromptFreeSam(vfm, encoder, decoder, image_size, scale, high_res_features)
    if gradient_checkpointing:
        network.set_gradient_checkpointing(True)
    return network


def _vision_config(vfm: str, fields: dict[str, Any]) -> SamVisionConfig:
    unknown = sorted(set(fields) - set(SamVisionConfig().to_dict()))
    if unknown:
        raise TskdError(f"{vfm}: config has fields that SamVisionConfig has not: {', '.join(unknown)}")
    # transformers' default range for this config is 1e-10, which would make an untrained encoder's output constant
    return SamVisionConfig(**{"initializer_range": 0.02, **fields})
