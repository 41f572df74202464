"""The 2-D augmentation for patches of volumes: every slice of a patch moves alike, in its plane."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tskd.distillation import preset_augmentation


class InPlaneAugmentation(nn.Module):
    """Applies an augmentation of 2-D batches to a batch of patches, whose slices become channels for it.

    So that all slices of a patch have one geometry and one change of intensity, and nothing is interpolated between
    slices, whose distance is mostly larger than a pixel.

    Args:
        augmentation: a `BatchAugmentation` (or one alike) without changes of colour.

    Shape:
        dict of B x C x X x Y x Z tensors with B equal for all; the key "image" in [0, 1]; dtypes and shapes are kept.
    """

    def __init__(self, augmentation: nn.Module) -> None:
        super().__init__()
        self.augmentation = augmentation

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the augmented batch."""
        flat = {key: value.movedim(-1, 1).flatten(1, 2) for key, value in batch.items()}
        moved = self.augmentation(flat)
        return {
            key: value.unflatten(1, (batch[key].shape[-1], batch[key].shape[1])).movedim(1, -1)
            for key, value in moved.items()
        }


def in_plane_augmentation(modality: str, **changes: float | None) -> InPlaneAugmentation:
    """Return the augmentation for patches of this modality; arguments and errors as of `preset_augmentation`."""
    return InPlaneAugmentation(preset_augmentation(modality, **changes))
