"""The one resizing of images: torch's antialiased bilinear interpolation, which keeps a constant image constant.

MONAI's `anti_aliasing` smooths with zeros beyond the border, so that edges darken to 0.92 and corners to 0.75 and less.
A shipped bundle, which has no module of ours, says the same with `Lambda` in its inference.json; `tskd predict`
with ONNX has it as matrices in NumPy.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Resized
from torch.nn import functional

_SMOOTH = ("bilinear", "trilinear")


class AntialiasedResized(Resized):
    """MONAI's `Resized`, and its way back, with the antialiasing of torch for modes that interpolate.

    Only the first two spatial axes may shrink: a volume is resized slice by slice.

    Args:
        keys: of the items.
        spatial_size: as `Resized` takes it: -1 keeps an axis.
        mode: "bilinear" or "trilinear" (one meaning: of each slice), or a mode without interpolation, for labels.
        allow_missing_keys: pass over keys that an item has not.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int] | int,
        mode: Sequence[str] | str = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, spatial_size, mode=mode, allow_missing_keys=allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Return the item with images [C, X, Y(, Z)] of the new size; each remembers its old one."""
        resized = super().__call__(data, lazy)
        for key, mode in self.key_iterator(resized, self.mode):
            if mode in _SMOOTH:
                resized[key].copy_(antialiased(torch.as_tensor(data[key]), resized[key].shape))
        return resized


def antialiased(image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return an image [C, X, Y] or volume [C, X, Y, Z] at the shape [C, X', Y'(, Z)], float32."""
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    slices = plain.float().reshape(*plain.shape[:3], -1).movedim(3, 0)  # Z x C x X x Y
    small = functional.interpolate(slices, tuple(shape[1:3]), mode="bilinear", antialias=True, align_corners=False)
    return small.movedim(0, 3).reshape(tuple(shape))
