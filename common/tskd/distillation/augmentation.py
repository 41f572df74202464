"""Random augmentation of a whole batch on its device, the same geometry for every key."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from monai.networks.layers import gaussian_1d
from torch import Tensor, nn
from torch.nn import functional

from tskd.errors import TskdError

NEAREST = ("label",)
SIGMA = 0.7  # pixels of the blur


class BatchAugmentation(nn.Module):
    """Samples an affine (and flip, gamma, noise, blur) per item and applies it to every key at its own resolution.

    Geometry is a normalised sampling grid, so image, label, logits and embedding move alike whatever their sizes.
    Points outside the image repeat its border. Intensity changes touch the image only. Draws come from torch's global
    generator.

    Args:
        rotate: largest rotation in degrees, either way (a rotation where the image is square).
        scale: largest relative zoom; the factor is drawn from exp(U(-log(1 + scale), log(1 + scale))).
        translate: largest shift as a fraction of the image, along each axis.
        shear: largest shear.
        flip: probability of a mirror image along the first axis (x). 0 where left and right organs differ.
        gamma: largest log2 of the gamma exponent.
        brightness: largest shift and relative contrast change of the intensity.
        exposure: largest log2 of a factor on the intensity, clipped at 1. The intensity scale of a volume ends at its
            brightest half percent, so that one bright lesion makes all organs darker; 1 covers a factor of two.
        noise: largest standard deviation of added Gaussian noise, for intensities in [0, 1].
        blur: probability of a Gaussian blur (sigma 0.7 pixels).

    Shape:
        dict of B x C x H x W tensors with B equal for all; the key "image" in [0, 1]; "label" is sampled by nearest
        neighbour, all others bilinearly.
    """

    kernel: Tensor

    def __init__(
        self,
        rotate: float = 15.0,
        scale: float = 0.15,
        translate: float = 0.08,
        shear: float = 0.05,
        flip: float = 0.0,
        gamma: float = 0.4,
        brightness: float = 0.1,
        exposure: float = 0.0,
        noise: float = 0.04,
        blur: float = 0.1,
    ) -> None:
        super().__init__()
        self.rotate, self.scale, self.translate, self.shear, self.flip = rotate, scale, translate, shear, flip
        self.gamma, self.brightness, self.exposure, self.noise, self.blur = gamma, brightness, exposure, noise, blur
        # MONAI's GaussianFilter makes its kernel anew in each call, for which a GPU would have to be waited for
        self.register_buffer("kernel", gaussian_1d(torch.tensor(SIGMA)), persistent=False)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the augmented batch; dtypes are kept."""
        if "image" not in batch:
            raise TskdError(f"augmentation: expected the key 'image', found {sorted(batch)}")
        matrix = self.sample_affine(len(batch["image"]), batch["image"].device)
        warped = {key: warp(value, matrix, nearest=key in NEAREST) for key, value in batch.items()}
        warped["image"] = self._intensity(warped["image"])
        return warped

    def sample_affine(self, count: int, device: torch.device) -> Tensor:
        """`count` x 2 x 3 matrices from output to input coordinates, both in [-1, 1]."""

        def uniform(limit: float) -> Tensor:
            return (torch.rand(count, device=device) * 2 - 1) * limit

        angle, shear = uniform(math.radians(self.rotate)), uniform(self.shear)
        zoom = torch.exp(uniform(math.log1p(self.scale)))
        # affine_grid's first coordinate runs along the last axis, so the mirrored x axis is the second
        mirror = 1 - 2 * (torch.rand(count, device=device) < self.flip).float()
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        shift = 2 * self.translate
        rows = [cos, shear - sin, uniform(shift), sin * mirror, cos * mirror, uniform(shift)]
        return torch.stack(rows, dim=1).reshape(count, 2, 3)

    def _intensity(self, image: Tensor) -> Tensor:
        count, shape = len(image), (len(image), 1, 1, 1)

        def uniform(limit: float) -> Tensor:
            return ((torch.rand(count, device=image.device) * 2 - 1) * limit).reshape(shape)

        image = image.clamp(0, 1) ** torch.exp2(uniform(self.gamma))
        if self.exposure > 0:
            image = (image * torch.exp2(uniform(self.exposure))).clamp(max=1)
        image = image * (1 + uniform(self.brightness)) + uniform(self.brightness) * 0.5
        if self.blur > 0:
            chosen = (torch.rand(shape, device=image.device) < self.blur).to(image.dtype)
            image = chosen * self._blurred(image) + (1 - chosen) * image
        deviation = torch.rand(shape, device=image.device) * self.noise
        return (image + deviation * torch.randn_like(image)).clamp(0, 1)

    def _blurred(self, image: Tensor) -> Tensor:
        kernel = self.kernel.to(image.dtype)
        reach = len(kernel) // 2
        padded = functional.pad(image.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
        rows = functional.conv2d(padded, kernel[None, None, :, None])
        return functional.conv2d(rows, kernel[None, None, None, :]).view(image.shape)


def warp(x: Tensor, matrix: Tensor, nearest: bool = False) -> Tensor:
    """Samples `x` (B x C x H x W) at `matrix` (B x 2 x 3), border repeated; the dtype is kept."""
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    mode = "nearest" if nearest else "bilinear"
    return functional.grid_sample(x.float(), grid, mode=mode, padding_mode="border", align_corners=False).to(x.dtype)
