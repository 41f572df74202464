"""The families of image encoders that can teach, and their published sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor

from tskd.networks.pixel_scale import HALF, IMAGENET, UNIT, PixelScale


@dataclass(frozen=True)
class Family:
    """How an encoder of `transformers` is used.

    Args:
        module: of `transformers.models`, such as "dinov2".
        model: class of the image encoder in its modeling file; built without torchvision and timm.
        config: class of its settings.
        pyramid: (encoder, pixels B x 3 x H x W) to embeddings B x C x h x w, from high to low resolution; the last one
            is what soft labels keep.
        strides: config to the stride of each level, in pixels.
        channels: config to the channels of each level.
        multiple: config to the number of pixels that a side must be a multiple of.
        scale: normalisation of the pretrained encoder.
        vision_key: of a composite config, its image encoder's settings.
        any_size: images of any (allowed) size at any time; else of the size that the network was built for.
    """

    module: str
    model: str
    config: str
    pyramid: Callable[[Any, Tensor], tuple[Tensor, ...]]
    strides: Callable[[Any], tuple[float, ...]]
    channels: Callable[[Any], tuple[int, ...]]
    multiple: Callable[[Any], int]
    scale: PixelScale = IMAGENET
    vision_key: str = "vision_config"
    any_size: bool = True

    def model_class(self) -> Any:
        """Return the class of the encoder."""
        return getattr(import_module(f"transformers.models.{self.module}.modeling_{self.module}"), self.model)

    def config_class(self) -> Any:
        """Return the class of its settings."""
        return getattr(import_module(f"transformers.models.{self.module}.configuration_{self.module}"), self.config)


def _feature_pyramid(encoder: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    return tuple(encoder(pixels).fpn_hidden_states[:3])  # SAM 3 has a fourth, of half the embedding's resolution


def _last_tokens(encoder: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    """Return the patch tokens of the last layer as a map; class and register tokens come before them."""
    height, width = (side // encoder.config.patch_size for side in pixels.shape[-2:])
    tokens = encoder(pixels).last_hidden_state[:, -height * width :]
    return (tokens.transpose(1, 2).unflatten(2, (height, width)),)


def _patch(config: Any) -> int:
    return int(config.patch_size)


def _plain_vit(module: str, model: str, config: str, scale: PixelScale = IMAGENET) -> Family:
    return Family(
        module, model, config, _last_tokens,
        strides=lambda settings: (_patch(settings),),
        channels=lambda settings: (settings.hidden_size,),
        multiple=_patch,
        scale=scale,
    )  # fmt: skip


FAMILIES: dict[str, Family] = {
    "sam2": Family(
        "sam2", "Sam2VisionModel", "Sam2VisionConfig", _feature_pyramid,
        strides=lambda config: (4, 8, 16),
        channels=lambda config: (config.fpn_hidden_size,) * 3,
        multiple=lambda config: 32,
    ),
    "sam3": Family(
        "sam3", "Sam3VisionModel", "Sam3VisionConfig", _feature_pyramid,
        strides=lambda config: tuple(config.backbone_config.patch_size * part for part in (0.25, 0.5, 1)),
        channels=lambda config: (config.fpn_hidden_size,) * 3,
        multiple=lambda config: config.backbone_config.patch_size,
        scale=HALF,
        any_size=False,
    ),
    "dinov2": _plain_vit("dinov2", "Dinov2Model", "Dinov2Config"),
    "dinov2_with_registers": _plain_vit(
        "dinov2_with_registers", "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig"
    ),
    "dinov3_vit": _plain_vit("dinov3_vit", "DINOv3ViTModel", "DINOv3ViTConfig"),
    "radio": _plain_vit("radio", "RadioModel", "RadioConfig", UNIT),  # it normalises by itself
}  # fmt: skip
MODEL_TYPES = {  # `model_type` of a config.json -> family
    "sam2": "sam2", "sam2_video": "sam2", "sam2_vision_model": "sam2",
    "sam3": "sam3", "sam3_video": "sam3", "sam3_tracker": "sam3", "sam3_vision_model": "sam3",
    "dinov2": "dinov2", "dinov2_with_registers": "dinov2_with_registers", "dinov3_vit": "dinov3_vit", "radio": "radio",
}  # fmt: skip


def _hiera(width: int, heads: int, stages: list[int], attend: list[int], **more: Any) -> dict[str, Any]:
    """Return settings of SAM 2's Hiera encoder (arXiv 2408.00714), whose width doubles with each stage."""
    widths = [width * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "embed_dim_per_stage": widths,
        "num_attention_heads": heads,
        "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
        "blocks_per_stage": stages,
        "global_attention_blocks": attend,
        **more,
    }
    return {"backbone_config": backbone, "backbone_channel_list": widths[::-1]}


def _dino(width: int, depth: int, **more: Any) -> dict[str, Any]:
    return {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": width // 64, **more}


_TINY = _hiera(96, 1, [1, 2, 7, 2], [5, 7, 9])
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {  # vfm -> family, settings of the published encoder
    "sam2_hiera_tiny": ("sam2", _TINY),
    "sam2_hiera_small": ("sam2", _hiera(96, 1, [1, 2, 11, 2], [7, 10, 13])),
    "sam2_hiera_base_plus": (
        "sam2",
        _hiera(112, 2, [2, 3, 16, 3], [12, 16, 20], window_positional_embedding_background_size=[14, 14]),
    ),
    "sam2_hiera_large": (
        "sam2", _hiera(144, 2, [2, 6, 36, 4], [23, 33, 43], window_size_per_stage=[8, 4, 16, 8])
    ),
    "medsam2": ("sam2", _TINY),
    "sam3": ("sam3", {"backbone_config": {"model_type": "sam3_vit_model"}}),
    "dinov2_small": ("dinov2", _dino(384, 12, image_size=518)),
    "dinov2_base": ("dinov2", _dino(768, 12, image_size=518)),
    "dinov2_large": ("dinov2", _dino(1024, 24, image_size=518)),
    "dinov3_small": ("dinov3_vit", _dino(384, 12, intermediate_size=1536, num_register_tokens=4)),
    "dinov3_base": ("dinov3_vit", _dino(768, 12, intermediate_size=3072, num_register_tokens=4)),
    "dinov3_large": ("dinov3_vit", _dino(1024, 24, intermediate_size=4096, num_register_tokens=4)),
    "c_radio_v4_h": ("radio", {}),
}  # fmt: skip
PLACES = {  # vfm -> repository of its weights on the Hugging Face hub
    "sam2_hiera_tiny": "facebook/sam2.1-hiera-tiny",
    "sam2_hiera_small": "facebook/sam2.1-hiera-small",
    "sam2_hiera_base_plus": "facebook/sam2.1-hiera-base-plus",
    "sam2_hiera_large": "facebook/sam2.1-hiera-large",
    "medsam2": "wanglab/MedSAM2",
    "sam3": "facebook/sam3",
    "dinov2_small": "facebook/dinov2-small",
    "dinov2_base": "facebook/dinov2-base",
    "dinov2_large": "facebook/dinov2-large",
    "dinov3_small": "facebook/dinov3-vits16-pretrain-lvd1689m",
    "dinov3_base": "facebook/dinov3-vitb16-pretrain-lvd1689m",
    "dinov3_large": "facebook/dinov3-vitl16-pretrain-lvd1689m",
    "c_radio_v4_h": "nvidia/C-RADIOv4-H",
}
ENCODERS: tuple[str, ...] = tuple(PRESETS)
NEED_TIMM = ("edgetam", "edgetam_video", "edgetam_vision_model")  # `model_type`
