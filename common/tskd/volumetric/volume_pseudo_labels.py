"""Pseudo-labels of a cached teacher and of a 3-D student's own average, on patches of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tskd.distillation import SemiSupervisedBatch
from tskd.volumetric.in_plane_augmentation import InPlaneAugmentation


class VolumeSemiSupervisedBatch(SemiSupervisedBatch):
    """`SemiSupervisedBatch` for patches: agreement is patch by patch, and CutMix boxes go through all slices.

    Its arithmetic is that of images: a patch is put to it as one image whose rows hold all slices, and put back
    together for the network and for the strong view, which is alike for all slices.

    Arguments and errors are those of `SemiSupervisedBatch`; `strong` is for images.

    Shape:
        image B x C x X x Y x Z, label B x 1 x X x Y x Z, logits B x N x X x Y x Z.
    """

    def __init__(self, augmentation: Any, average: nn.Module, strong: nn.Module | None = None, **settings: Any) -> None:
        super().__init__(
            augmentation, average, strong=_Strong(self, strong) if strong is not None else None, **settings
        )
        self.slices = 1

    def teach(self, image: Tensor, target: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the strong view and the pseudo-labels of a batch of patches in its weak view."""
        self.slices = image.shape[-1]
        image, target = super().teach(image.flatten(3), {key: value.flatten(3) for key, value in target.items()})
        return self.patch(image), {key: self.patch(value) for key, value in target.items()}

    def patch(self, x: Tensor) -> Tensor:
        """Return B x C x X x (Y Z) as B x C x X x Y x Z."""
        return x.unflatten(3, (-1, self.slices))

    def _student(self, image: Tensor) -> Tensor | None:
        answer = super()._student(self.patch(image))
        return None if answer is None else answer.flatten(3)


class _Strong(nn.Module):
    """A strong view of images for patches that are laid out as images."""

    def __init__(self, batch: VolumeSemiSupervisedBatch, strong: nn.Module) -> None:
        super().__init__()
        self.batch, self.in_plane = batch, InPlaneAugmentation(strong)

    def forward(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the view."""
        changed = self.in_plane({key: self.batch.patch(value) for key, value in view.items()})
        return {key: value.flatten(3) for key, value in changed.items()}
