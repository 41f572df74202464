"""Test-time augmentation of a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tskd.distillation.augmentation import BatchAugmentation
from tskd.distillation.soft_labels.manifest import stored
from tskd.errors import TskdError
from tskd.networks.resize import at_size


class Averaged(nn.Module):
    """Logits of a prompt-free SAM, averaged over mirrored and resized images.

    Every scale (and 1) is combined with no flip and with each flip. Logits are averaged at the plain image's
    resolution. The embedding is the plain image's: features do not commute with flips.

    Args:
        network: `PromptFreeSam` in evaluation mode with its weights loaded.
        image_size: side of the images.
        flips: array axes to mirror along, each by itself: 0 is x, 1 is y. Only where anatomy allows it: a mirrored
            abdomen has its liver on the wrong side.
        scales: factors of the image size, rounded to the encoder's stride; a ViT is copied for each.

    Raises:
        TskdError: for another axis, or a scale that is not above 0.
    """

    def __init__(self, network: Any, image_size: int, flips: Sequence[int] = (), scales: Sequence[float] = ()) -> None:
        super().__init__()
        if set(flips) - {0, 1} or any(scale <= 0 for scale in scales):
            raise TskdError(
                f"tta: expected flips of the axes 0 and 1 and scales above 0, found flips {list(flips)}, scales "
                f"{list(scales)}"
            )
        self.network = network
        self.flips = [None, *flips]
        stride = network.stride
        sizes = {max(1, round(scale * image_size / stride)) * stride for scale in scales} - {image_size}
        self.resized = nn.ModuleDict({str(size): at_size(network, size) for size in sorted(sizes)})

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Run as `PromptFreeSam.forward_features`, with averaged `logits_low`."""
        plain = self.network.forward_features(x)
        grid = plain["logits_low"].shape[2:]
        views = [plain["logits_low"].float()]
        for size, network in [(None, self.network), *self.resized.items()]:
            image = x if size is None else functional.interpolate(
                x, size=(int(size), int(size)), mode="bilinear", align_corners=False, antialias=True
            )  # fmt: skip
            for axis in self.flips if size else self.flips[1:]:
                views.append(_logits(network, image, axis, grid))
        return {**plain, "logits_low": torch.stack(views).mean(0)}


def trained_flips(augmentation: BatchAugmentation, folder: str | Path) -> dict[str, Any] | None:
    """Return the `tta` that mirrors as `augmentation` did in training: {"flips": axes}, 0 is x, 1 is y; or None.

    A dermoscopic image is mirrored along both, an abdomen along none. A folder of soft labels that is begun keeps the
    `tta` that it was begun with.
    """
    if (begun := stored(Path(folder))) is not None:
        return begun["tta"]
    axes = [axis for axis, share in enumerate((augmentation.flip, augmentation.flip_y)) if share > 0]
    return {"flips": axes} if axes else None


def with_tta(network: Any, image_size: int, tta: Mapping[str, Any] | None) -> Any:
    """Return `network` itself, or `Averaged` with the options of `tta`."""
    if not tta:
        return network
    if unknown := sorted(set(tta) - {"flips", "scales"}):
        raise TskdError(f"tta: expected flips and scales, found {', '.join(unknown)}")
    return Averaged(network, image_size, **tta).eval()


def _logits(network: Any, image: Tensor, axis: int | None, grid: torch.Size) -> Tensor:
    dims = [] if axis is None else [2 + axis]
    logits = network.forward_features(image.flip(dims))["logits_low"].float().flip(dims)
    if logits.shape[2:] != grid:
        logits = functional.interpolate(logits, size=grid, mode="bilinear", align_corners=False, antialias=True)
    return logits
