"""Per-pixel distillation, weighted towards the organs' boundaries."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tskd.errors import TskdError
from tskd.losses.logits_kl import pixel_kl
from tskd.losses.shapes import check_same_shape


class BoundaryKLLoss(nn.Module):
    r"""sum_x w(x) KL_T(x) / sum_x w(x), w = max(floor, exp(-d(x)^2 / (2 sigma^2))), d the distance to the contour.

    KL_T is the divergence of `LogitsKLLoss` at pixel x. The contour are the pixels with a neighbour of another class in
    the teacher's argmax; d is Euclidean, in pixels of the student's grid. Distance as a weight of the loss: U-Net,
    arXiv 1505.04597.

    Args:
        temperature: T of the divergence.
        sigma: width of the border's neighbourhood in pixels, above 0.
        floor: weight far from every contour, 0 to 1; with 0 an image of one class teaches nothing.

    Shape:
        student and teacher logits B x N x H x W [x D]; returns a scalar in float32, 0 (with a gradient of 0) where
        `floor` is 0 and no image has a contour.

    Raises:
        TskdError: for a sigma or floor out of range, or when the shapes differ.
    """

    def __init__(self, temperature: float = 2.0, sigma: float = 3.0, floor: float = 0.1) -> None:
        super().__init__()
        if sigma <= 0 or not 0 <= floor <= 1:
            raise TskdError(f"BoundaryKLLoss: expected sigma > 0 and floor in 0..1, found {sigma} and {floor}")
        self.temperature, self.sigma, self.floor = temperature, sigma, floor

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the weighted mean."""
        check_same_shape("BoundaryKLLoss", student, teacher)
        weight = contour_weight(teacher.detach().argmax(1), self.sigma).clamp(min=self.floor)
        return (weight * pixel_kl(student, teacher, self.temperature)).sum() / weight.sum().clamp(min=1e-6)


def contour(classes: Tensor) -> Tensor:
    """Return the pixels of B x H x W [x D] class indices with a neighbour of another class along an axis, as bool."""
    boundary = torch.zeros_like(classes, dtype=torch.bool)
    for axis in range(1, classes.ndim):
        if (length := classes.shape[axis] - 1) > 0:
            differs = classes.narrow(axis, 1, length) != classes.narrow(axis, 0, length)
            boundary.narrow(axis, 0, length).logical_or_(differs)
            boundary.narrow(axis, 1, length).logical_or_(differs)
    return boundary


def contour_weight(classes: Tensor, sigma: float) -> Tensor:
    """Return exp(-d^2 / (2 sigma^2)) for the Euclidean distance d to the contour; 0 beyond 4 sigma along an axis.

    A Gaussian of d is a product over the axes, so its maximum over all contour pixels is found axis by axis.
    """
    weight = contour(classes).float()
    for axis in range(1, weight.ndim):
        dilated = weight.clone()
        for step in range(1, min(math.ceil(4 * sigma), weight.shape[axis] - 1) + 1):
            length, factor = weight.shape[axis] - step, math.exp(-(step**2) / (2 * sigma**2))
            for source, target in ((0, step), (step, 0)):
                window = dilated.narrow(axis, target, length)
                window.copy_(torch.maximum(window, factor * weight.narrow(axis, source, length)))
        weight = dilated
    return weight
