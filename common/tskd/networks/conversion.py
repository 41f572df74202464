"""Key names of SAM checkpoints: the original layout, the layout of `transformers`, and ours.

Original (segment-anything, MedSAM, MobileSAM, LiteMedSAM): `image_encoder.*`, `prompt_encoder.*`, `mask_decoder.*`.
`transformers` (`SamModel.save_pretrained`): `vision_encoder.*`, `shared_image_embedding.*`, `prompt_encoder.*`,
`mask_decoder.*`. Ours (`PromptFreeSam`): `image_encoder.*` and `mask_decoder.*` with the names of `transformers`
(TinyViT: the original names), `positional_embedding`, `no_prompt_embedding`.
"""

import re
from collections.abc import Mapping

from torch import Tensor

State = dict[str, Tensor]

# Parts of a checkpoint that a network without prompts has no use for
UNUSED = re.compile(
    r"prompt_encoder\.(point_embeddings|point_embed|not_a_point_embed|mask_downscaling|mask_embed|shared_embedding)\."
    r"|image_encoder\.(norm_head|head)\."
)

_PROMPT = [
    (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", "positional_embedding"),
    (r"shared_image_embedding\.positional_embedding$", "positional_embedding"),
    (r"prompt_encoder\.no_mask_embed\.weight$", "no_prompt_embedding"),
]
_MLP = r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head)\."
_DECODER = [
    (r"(mask_decoder\.transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
    (r"mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (_MLP + r"layers\.0\.", r"mask_decoder.\1.proj_in."),
    (_MLP + r"layers\.1\.", r"mask_decoder.\1.layers.0."),
    (_MLP + r"layers\.2\.", r"mask_decoder.\1.proj_out."),
]
_VIT = [
    (r"image_encoder\.patch_embed\.proj\.", "image_encoder.patch_embed.projection."),
    (r"image_encoder\.blocks\.(\d+)\.norm(\d)\.", r"image_encoder.layers.\1.layer_norm\2."),
    (r"image_encoder\.blocks\.", "image_encoder.layers."),
    (r"image_encoder\.neck\.0\.", "image_encoder.neck.conv1."),
    (r"image_encoder\.neck\.1\.", "image_encoder.neck.layer_norm1."),
    (r"image_encoder\.neck\.2\.", "image_encoder.neck.conv2."),
    (r"image_encoder\.neck\.3\.", "image_encoder.neck.layer_norm2."),
]
_TRANSFORMERS = [(r"vision_encoder\.", "image_encoder.")]


def is_transformers_layout(keys: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of a saved `transformers.SamModel`."""
    return any(key.startswith("vision_encoder.") for key in keys)


def to_network_layout(state: Mapping[str, Tensor], vit: bool) -> State:
    """Rename the keys of a checkpoint to those of `PromptFreeSam`, leaving out the parts in `UNUSED`.

    Args:
        state: checkpoint in the original layout or in that of `transformers`.
        vit: the image encoder is a ViT of `transformers` (True) or a TinyViT (False).

    Returns:
        The same tensors; a key that no rule knows keeps its name.
    """
    if is_transformers_layout(state):
        rules = [*_PROMPT, *_TRANSFORMERS]
    else:
        rules = [*_PROMPT, *_DECODER, *(_VIT if vit else [])]
    return {_rename(key, rules): value for key, value in state.items() if not UNUSED.match(key)}


def _rename(key: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        renamed, count = re.subn("^" + pattern, replacement, key)
        if count:
            return renamed
    return key
