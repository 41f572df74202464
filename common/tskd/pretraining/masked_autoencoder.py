"""Masked autoencoder around the student's own encoder (He et al., arXiv 2111.06377)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.networks.blocks import TransformerBlock
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from monai.networks.nets import ViT
from torch import Tensor, nn

from tskd.errors import TskdError


class MaskedAutoencoder(nn.Module):
    """Masked autoencoder: the student's encoder sees a random quarter of the patches, a decoder predicts the others.

    MONAI's `MaskedAutoEncoderViT` has an encoder of its own, with a class token; here it is the student's, which learns
    in place. The decoder is made of the same transformer blocks and is thrown away.

    Args:
        vit: 2-D MONAI ViT without class token, with a convolution for patch embedding, such as `UNETR.vit`.
        image_size: (H, W) in pixels, the ViT's.
        masking_ratio: share of the patches that the encoder does not see, from 0 to below 1.
        hidden_size: width of the decoder, a multiple of 4 and of `num_heads`.
        num_layers: blocks of the decoder.
        num_heads: attention heads of the decoder.

    Raises:
        TskdError: for another encoder, image size or ratio.
    """

    def __init__(
        self,
        vit: ViT,
        image_size: Sequence[int],
        masking_ratio: float = 0.75,
        hidden_size: int = 96,
        num_layers: int = 4,
        num_heads: int = 3,
    ) -> None:
        super().__init__()
        patches = patch_convolution(vit)
        height, width = (side // patch for side, patch in zip(image_size, patches.kernel_size, strict=True))
        self.num_patches = vit.patch_embedding.position_embeddings.shape[1]
        if height * width != self.num_patches or not 0 <= masking_ratio < 1:
            raise TskdError(
                f"masked autoencoder: expected a masking_ratio from 0 to below 1 and an image of {self.num_patches} "
                f"patches, found {masking_ratio} and {height} x {width} patches (image_size {list(image_size)})"
            )
        self.num_kept = max(1, self.num_patches - round(masking_ratio * self.num_patches))
        self.vit = vit
        self.embed = nn.Linear(patches.out_channels, hidden_size)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, hidden_size))
        nn.init.normal_(self.mask_token, std=0.02)
        self.positions = build_sincos_position_embedding([height, width], hidden_size, 2)  # fixed
        blocks = [TransformerBlock(hidden_size, 4 * hidden_size, num_heads, qkv_bias=True) for _ in range(num_layers)]
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(hidden_size))
        pixels = patches.kernel_size[0] * patches.kernel_size[1] * patches.in_channels
        self.predict = nn.Linear(hidden_size, pixels)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Hide patches, encode the rest, predict all.

        Args:
            image: B x C x H x W.

        Returns:
            `patches`: predicted, B x N x (p * p * C), as `to_patches` orders them; `mask`: B x N, 1 where the patch was
            hidden.
        """
        features, visible = self.encode(image)
        features = self.embed(features)
        tokens = self.mask_token.to(features.dtype).repeat(len(image), self.num_patches, 1)
        tokens = tokens.scatter(1, visible[..., None].expand_as(features), features)
        mask = torch.ones(tokens.shape[:2], device=image.device).scatter(1, visible, 0.0)
        return {"patches": self.predict(self.decoder(tokens + self.positions)), "mask": mask}

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of the visible patches, B x K x D, and their indices, B x K, in the image's order."""
        tokens = self.vit.patch_embedding(image)
        visible = torch.rand(tokens.shape[:2], device=image.device).argsort(1)[:, : self.num_kept].sort(1).values
        tokens = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[2]))
        for block in self.vit.blocks:
            tokens = block(tokens)
        return self.vit.norm(tokens), visible


class MaskedPatchLoss(nn.Module):
    """Mean squared error of the hidden patches, each normalised by its own mean and deviation.

    Args:
        patch_size: side of a patch in pixels.

    Shape:
        outputs of `MaskedAutoencoder`, image B x C x H x W; returns a scalar.
    """

    def __init__(self, patch_size: int = 16) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, outputs: Mapping[str, Tensor], image: Tensor) -> Tensor:
        """Return the mean over hidden patches; 0 where none is."""
        target = to_patches(image, self.patch_size)
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
        error = (outputs["patches"] - target).square().mean(-1)
        return (error * outputs["mask"]).sum() / outputs["mask"].sum().clamp(min=1)


def to_patches(image: Tensor, size: int) -> Tensor:
    """Return B x C x H x W as B x N x (size * size * C), in the order of a ViT's tokens."""
    patches = image.unfold(2, size, size).unfold(3, size, size)  # B x C x h x w x size x size
    return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def encoder_of(network: nn.Module) -> ViT:
    """Return the ViT of a student such as UNETR, its module `vit`.

    Raises:
        TskdError: a student without one.
    """
    vit = getattr(network, "vit", None)
    if not isinstance(vit, ViT):
        raise TskdError(
            f"pretraining: expected a student with a MONAI ViT under `vit`, as UNETR, found {type(network).__name__}. "
            "This rival is for students with such an encoder; other networks have `distill` and `pseudo_label`"
        )
    return vit


def patch_convolution(vit: ViT) -> nn.Conv2d:
    """Return the convolution that makes tokens of patches.

    Raises:
        TskdError: for anything else than a 2-D MONAI ViT without class token.
    """
    patches = getattr(getattr(vit, "patch_embedding", None), "patch_embeddings", None)
    if not isinstance(vit, ViT) or hasattr(vit, "cls_token") or not isinstance(patches, nn.Conv2d):
        raise TskdError(
            "pretraining: expected a 2-D MONAI ViT without class token whose patch embedding is a convolution (as "
            f"UNETR(spatial_dims=2).vit), found {type(vit).__name__}. This rival is for students with such an encoder"
        )
    return patches
