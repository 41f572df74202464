"""Prompt-free SAM: one image in, one logit map a class out."""

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamVisionEncoder

from tskd.errors import TskdError
from tskd.networks.high_res import HighResFeatures
from tskd.networks.pixel_scale import PixelScale
from tskd.networks.tiny_vit import TinyViT


class PromptFreeSam(nn.Module):
    """SAM's image encoder and mask decoder, with the no-mask embedding as the only prompt and one mask token a class.

    Follows Segment Anything (arXiv 2304.02643), automatic multi-class as in SAMed (arXiv 2304.13785). The decoder is
    `transformers`' own module, the encoder `transformers`' `SamVisionEncoder` or our `TinyViT`; both keep their stock
    state dict. Class 0 is the background and has a mask token like any other class. The decoder's IoU head stays in the
    state dict and is never run.

    Args:
        vfm: name of the foundation model, one of `tskd.networks.build.VFMS`.
        image_encoder: B x 3 x H x W to B x 256 x H/stride x W/stride.
        decoder_config: settings of the mask decoder; classes = num_multimask_outputs + 1.
        image_size: side of the (square) training image in pixels; a ViT takes only this size, TinyViT any size.
        pixel_scale: the pretrained encoder's normalisation.
        high_res_features: decode at the image's own resolution, for thin structures; not at stride 4, which does so.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    positional_embedding: Tensor
    image_encoder: SamVisionEncoder | TinyViT

    def __init__(
        self,
        vfm: str,
        image_encoder: SamVisionEncoder | TinyViT,
        decoder_config: SamMaskDecoderConfig,
        image_size: int,
        pixel_scale: PixelScale,
        high_res_features: bool = False,
    ) -> None:
        super().__init__()
        self.vfm = vfm
        self.image_size = image_size
        self.num_classes = decoder_config.num_multimask_outputs + 1
        self.any_size = isinstance(image_encoder, TinyViT)
        if isinstance(image_encoder, TinyViT):
            self.stride = image_encoder.stride
        else:
            self.stride = cast(int, image_encoder.config.patch_size)
        self._check_size(image_size, image_size)
        self.image_encoder = image_encoder
        self.mask_decoder = SamMaskDecoder(decoder_config)
        self.mask_decoder.iou_prediction_head.requires_grad_(False)
        width = decoder_config.hidden_size
        self.high_res = HighResFeatures(width // 8) if high_res_features else None
        self.register_buffer("positional_embedding", torch.randn(2, width // 2))
        self.no_prompt_embedding = nn.Parameter(torch.randn(1, width))
        self.register_buffer("pixel_mean", torch.tensor(pixel_scale.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_scale.std).view(1, 3, 1, 1), persistent=False)

    def _check_size(self, height: int, width: int) -> None:
        if height % self.stride or width % self.stride:
            raise TskdError(
                f"{self.vfm}: the image size must be a multiple of the encoder's stride {self.stride}, found "
                f"{height} x {width}; resize or pad the image (image_size)"
            )
        if not self.any_size and (height, width) != (self.image_size, self.image_size):
            raise TskdError(
                f"{self.vfm}: built for images of {self.image_size} x {self.image_size}, found {height} x {width}; "
                "resize the image, or build the network with that image_size"
            )

    def _normalise(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise TskdError(f"{self.vfm}: expected images B x 1 x H x W or B x 3 x H x W, found {tuple(x.shape)}")
        return (x.expand(-1, 3, -1, -1) - self.pixel_mean) / self.pixel_std

    def _positional_grid(self, height: int, width: int) -> Tensor:
        """Return random Fourier features of the embedding's pixel centres: 1 x C x h x w."""
        embedding = self.positional_embedding.float()
        y = (torch.arange(height, device=embedding.device) + 0.5) / height
        x = (torch.arange(width, device=embedding.device) + 0.5) / width
        grid = torch.stack([x[None, :].expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
        with torch.autocast(embedding.device.type, enabled=False):  # sines of large phases need single precision
            phase = 2 * torch.pi * ((2 * grid - 1) @ embedding)
        features = torch.cat([phase.sin(), phase.cos()], dim=-1).permute(2, 0, 1)[None]
        return features.to(self.positional_embedding.dtype)

    def _decode(self, embedding: Tensor, image: Tensor) -> Tensor:
        """Run `SamMaskDecoder.forward` with the masks of all tokens: B x 256 x h x w to B x C x 4h x 4w, or H x W."""
        decoder = self.mask_decoder
        batch, channels, height, width = embedding.shape
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])  # 1 + C tokens
        tokens = tokens.expand(batch, 1, -1, -1)
        tokens, pixels = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=embedding + self.no_prompt_embedding[..., None, None],
            image_positional_embeddings=self._positional_grid(height, width).expand(batch, -1, -1, -1),
            attention_similarity=None,
        )
        pixels = pixels.transpose(2, 3).reshape(batch, channels, height, width)
        pixels = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(pixels)))
        pixels = decoder.activation(decoder.upscale_conv2(pixels))  # B x C' x 4h x 4w
        if self.high_res is not None:
            pixels = self.high_res(pixels, image)  # B x C' x H x W
        kernels = [mlp(tokens[:, 0, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        masks = torch.stack(kernels, dim=1) @ pixels.flatten(2)
        return masks.view(batch, -1, *pixels.shape[-2:])

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Run encoder and decoder without upsampling.

        Args:
            x: images B x c x H x W in [0, 1], c = 1 (grey) or 3.

        Returns:
            `logits_low`: B x C x 4h x 4w, or B x C x H x W with `high_res_features`; `embedding`: the encoder's output,
            B x 256 x h x w, with h = H / stride.

        Raises:
            TskdError: the size is not one that the encoder takes.
        """
        self._check_size(*x.shape[-2:])
        image = self._normalise(x)
        embedding = self.image_encoder(image)
        if not self.any_size:
            embedding = embedding.last_hidden_state
        return {"logits_low": self._decode(embedding, image), "embedding": embedding}

    def forward(self, x: Tensor, low_resolution: bool = False) -> Tensor:
        """Map images B x c x H x W in [0, 1] to class logits B x C x H x W.

        With `low_resolution` the logits are the decoder's own, B x C x 4h x 4w (H x W with `high_res_features`), as
        SAMed's loss takes them.
        """
        logits = self.forward_features(x)["logits_low"]
        if low_resolution or logits.shape[-2:] == x.shape[-2:]:
            return logits
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the encoder's blocks in the backward pass: less memory, about a third more time."""
        if isinstance(self.image_encoder, TinyViT):
            self.image_encoder.gradient_checkpointing = enabled
            return
        layer: Any
        for layer in self.image_encoder.layers:  # the switch of transformers' GradientCheckpointingLayer, in any 5.x
            layer.gradient_checkpointing = enabled
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
