"""Region affinity distillation: similarity of the mean features of two organs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tskd.errors import TskdError


class RegionAffinityLoss(nn.Module):
    r"""Mean over pairs i < j of (cos(s_i, s_j) - cos(t_i, t_j))^2, with s_i and t_i the mean features of region i.

    Regional affinity distillation, Qin et al., arXiv 2108.09987. There the regions are the labels' masks; here they are
    the teacher's class probabilities r_i, so that no label is needed: s_i = sum_x r_i(x) s(x), likewise t_i. A class is
    a region of an image where the teacher gives it more than half somewhere; images with less than two count nothing.

    Shape:
        student features B x N x H x W [x D], teacher features B x M x ..., regions: teacher's logits B x C x ..., each
        of its own spatial size; returns a scalar in float32, 0 (with a gradient of 0) where no image has two regions.

    Raises:
        TskdError: when the batch sizes or the numbers of axes differ.
    """

    def forward(self, student: Tensor, teacher: Tensor, regions: Tensor) -> Tensor:
        """Return the mean over all pairs of the batch."""
        if not (len(student) == len(teacher) == len(regions) and student.ndim == teacher.ndim == regions.ndim >= 3):
            raise TskdError(
                "RegionAffinityLoss: expected student BNHW[D], teacher BMHW[D] and regions BCHW[D] of one batch, found "
                f"{tuple(student.shape)}, {tuple(teacher.shape)} and {tuple(regions.shape)}"
            )
        masks = regions.detach().float().softmax(1)
        present = masks.flatten(2).amax(2) > 0.5
        pairs = torch.triu(present[:, :, None] & present[:, None], diagonal=1)
        distance = (affinity(student.float(), masks) - affinity(teacher.detach().float(), masks)).square()
        return (distance * pairs).sum() / pairs.sum().clamp(min=1)


def affinity(features: Tensor, masks: Tensor) -> Tensor:
    """Return cosines B x C x C between mean features of B x N x ... in the masks B x C x ..., pooled to their size."""
    masks = functional.interpolate(masks, size=features.shape[2:], mode="area").flatten(2)
    with torch.autocast(features.device.type, enabled=False):  # matrix products would be rounded to half precision
        means = functional.normalize(masks @ features.flatten(2).transpose(1, 2), dim=2)
        return means @ means.transpose(1, 2)
