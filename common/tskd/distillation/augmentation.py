"""Random augmentation of a whole batch on its device, the same geometry for every key."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from monai.networks.layers import gaussian_1d
from torch import Tensor, nn
from torch.nn import functional

from tskd.distillation import photometric
from tskd.errors import TskdError

NEAREST = ("label",)
SIGMA = 0.7  # pixels of the blur
CONTROL_POINTS = 5  # of the elastic deformation, along each axis


class BatchAugmentation(nn.Module):
    """Samples a deformation and intensity changes per item and applies them to every key at its own resolution.

    Geometry is a normalised sampling grid, so image, label, logits and embedding move alike whatever their sizes.
    Points outside the image repeat its border. Intensity changes touch the image only. Draws come from torch's global
    generator.

    Args:
        rotate: largest rotation in degrees, either way (a rotation where the image is square).
        scale: largest relative zoom; the factor is drawn from exp(U(-log(1 + scale), log(1 + scale))).
        translate: largest shift as a fraction of the image, along each axis.
        shear: largest shear.
        flip: probability of a mirror image along the first axis (x). 0 where left and right organs differ.
        flip_y: the same along the second axis.
        elastic: largest shift of each of 5 x 5 control points as a fraction of half the image, smooth between them.
        gamma: largest log2 of the gamma exponent.
        brightness: largest shift and relative contrast change of the intensity.
        exposure: largest log2 of a factor on the intensity, clipped at 1. The intensity scale of a volume ends at its
            brightest half percent, so that one bright lesion makes all organs darker; 1 covers a factor of two.
        noise: largest standard deviation of added Gaussian noise, for intensities in [0, 1].
        blur: probability of a Gaussian blur (sigma 0.7 pixels).
        contrast: largest relative stretch about the mean of each channel.
        saturation: largest relative change of the distance from grey, for RGB.
        colour: largest relative change of the gain of each channel, for RGB.
        low_resolution: probability of sampling down, to 0.4 of the side at least, and up again.

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
        flip_y: float = 0.0,
        elastic: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        colour: float = 0.0,
        low_resolution: float = 0.0,
    ) -> None:
        super().__init__()
        self.rotate, self.scale, self.translate, self.shear, self.flip = rotate, scale, translate, shear, flip
        self.gamma, self.brightness, self.exposure, self.noise, self.blur = gamma, brightness, exposure, noise, blur
        self.flip_y, self.elastic, self.contrast = flip_y, elastic, contrast
        self.saturation, self.colour, self.low_resolution = saturation, colour, low_resolution
        # MONAI's GaussianFilter makes its kernel anew in each call, for which a GPU would have to be waited for
        self.register_buffer("kernel", gaussian_1d(torch.tensor(SIGMA)), persistent=False)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the augmented batch; dtypes are kept."""
        if "image" not in batch:
            raise TskdError(f"augmentation: expected the key 'image', found {sorted(batch)}")
        count, device = len(batch["image"]), batch["image"].device
        matrix, field = self.sample_affine(count, device), self.sample_field(count, device)
        warped = {key: warp(value, matrix, key in NEAREST, field) for key, value in batch.items()}
        warped["image"] = self._intensity(warped["image"])
        return warped

    def sample_affine(self, count: int, device: torch.device) -> Tensor:
        """Return `count` x 2 x 3 matrices from output to input coordinates, both in [-1, 1]."""

        def uniform(limit: float) -> Tensor:
            return (torch.rand(count, device=device) * 2 - 1) * limit

        def mirror(probability: float) -> Tensor:
            return 1 - 2 * (torch.rand(count, device=device) < probability).float()

        angle, shear = uniform(math.radians(self.rotate)), uniform(self.shear)
        zoom = torch.exp(uniform(math.log1p(self.scale)))
        x = mirror(self.flip)  # affine_grid's first coordinate runs along the last axis, so x is its second
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        shift = 2 * self.translate
        rows = [cos, shear - sin, uniform(shift), sin * x, cos * x, uniform(shift)]
        matrix = torch.stack(rows, dim=1).reshape(count, 2, 3)
        if self.flip_y > 0:
            matrix[:, 0, :2] *= mirror(self.flip_y)[:, None]
        return matrix

    def sample_field(self, count: int, device: torch.device) -> Tensor | None:
        """Return `count` x 2 x 5 x 5 shifts of control points in [-1, 1], in the order of `affine_grid`; or None."""
        if self.elastic <= 0:
            return None
        return (torch.rand(count, 2, CONTROL_POINTS, CONTROL_POINTS, device=device) * 2 - 1) * self.elastic

    def _intensity(self, image: Tensor) -> Tensor:
        def uniform(limit: float) -> Tensor:
            return photometric.uniform(image, limit)

        image = image.clamp(0, 1) ** torch.exp2(uniform(self.gamma))
        if self.exposure > 0:
            image = (image * torch.exp2(uniform(self.exposure))).clamp(max=1)
        image = image * (1 + uniform(self.brightness)) + uniform(self.brightness) * 0.5
        if self.contrast > 0:
            image = photometric.change_contrast(image, self.contrast)
        if self.saturation > 0:
            image = photometric.change_saturation(image, self.saturation)
        if self.colour > 0:
            image = photometric.change_colour(image, self.colour)
        if self.low_resolution > 0:
            image = photometric.lower_resolution(image, self.low_resolution)
        if self.blur > 0:
            mask = photometric.chosen(image, self.blur)
            image = mask * photometric.blurred(image, self.kernel) + (1 - mask) * image
        deviation = torch.rand((len(image), 1, 1, 1), device=image.device) * self.noise
        return (image + deviation * torch.randn_like(image)).clamp(0, 1)


def warp(x: Tensor, matrix: Tensor, nearest: bool = False, field: Tensor | None = None) -> Tensor:
    """Sample `x` (B x C x H x W) at `matrix` (B x 2 x 3) plus the shifts `field`, border repeated; keeps the dtype."""
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    if field is not None:
        shifts = functional.interpolate(field, size=x.shape[2:], mode="bicubic", align_corners=False)
        grid = grid + shifts.movedim(1, 3)
    mode = "nearest" if nearest else "bilinear"
    return functional.grid_sample(x.float(), grid, mode=mode, padding_mode="border", align_corners=False).to(x.dtype)
