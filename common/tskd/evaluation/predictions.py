"""Index masks and grid of a case, and files of predicted masks on the grid of their image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from numpy.typing import NDArray
from PIL import Image

from tskd.data.io.geometry import same_grid
from tskd.data.io.nifti import ROUNDING, clean_image
from tskd.errors import TskdError
from tskd.files import atomic


def index_mask(item: Mapping[str, Any], key: str) -> NDArray:
    """Return the mask `item[key]` [1, X, Y(, Z)] as an integer array [X, Y(, Z)]."""
    value = item[key]
    mask = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if mask.ndim not in (3, 4) or mask.shape[0] != 1:
        raise TskdError(
            f"case {item.get('case')!r}, {key!r}: expected one channel of class indices, [1, X, Y] or [1, X, Y, Z]; "
            f"found {tuple(mask.shape)}. End the postprocessing with AsDiscreted(argmax=True)."
        )
    indices = np.rint(mask[0]).astype(np.int64)
    if not (np.abs(indices - mask[0]) <= ROUNDING).all():  # NaN is off, too
        raise TskdError(f"case {item.get('case')!r}, {key!r}: expected class indices, found fractions.")
    return indices


def geometry(item: Mapping[str, Any]) -> tuple[NDArray, list[float], str]:
    """Return affine, spacing and unit of a case; check that the prediction lies on the grid of the image file.

    Args:
        item: has `pred` and `label` [1, X, Y(, Z)], and `image` with the metadata that LoadImaged gave it.

    Returns:
        The affine (4 x 4, RAS), the spacing of each axis, and "mm"; or "pixel" where the file has no spacing.

    Raises:
        TskdError: the prediction, or the label, is on another grid than the image file.
    """
    pred, image, case = item["pred"], item.get("image"), item.get("case")
    dims = pred.ndim - 1
    meta = image.meta if isinstance(image, MetaTensor) else {}
    shape = meta.get("spatial_shape")
    if shape is not None and tuple(int(n) for n in shape)[:dims] != tuple(pred.shape[1:]):
        raise TskdError(
            f"case {case!r}: the image file has the grid {tuple(int(n) for n in shape)}, the prediction "
            f"{tuple(pred.shape[1:])}. Invert the preprocessing of the prediction (Invertd) before scoring it."
        )
    affines = {name: _affine(item[name]) for name in ("pred", "label") if isinstance(item[name], MetaTensor)}
    original = meta.get("original_affine")
    if original is not None:
        affines["image file"] = np.asarray(original, dtype=float)
    if not affines:
        return np.eye(4), [1.0] * dims, "pixel"
    reference = affines.get("image file", affines.get("label", affines.get("pred")))
    assert reference is not None
    for name, affine in affines.items():
        if not same_grid(affine, reference, tuple(pred.shape[1:])):
            raise TskdError(
                f"case {case!r}: {name} is not on the grid of the image file.\n{name}:\n{affine}\nexpected:\n"
                f"{reference}\nInvert the preprocessing of both `pred` and `label` (Invertd) before scoring; a label "
                "file has to have the axes of its image."
            )
    spacing = [float(s) for s in affine_to_spacing(reference, r=dims)]
    return reference, spacing, "mm" if original is not None else "pixel"


def save_mask(mask: NDArray, affine: NDArray, path: Path) -> Path:
    """Write an index mask as NIfTI with a clean header (3-D), or as 8-bit PNG (2-D).

    Args:
        mask: class indices below 256, [X, Y, Z] or [X, Y].
        affine: 4 x 4, RAS.
        path: file to write, without its suffix.

    Returns:
        The file written.
    """
    pixels = mask.astype(np.uint8)
    if mask.ndim == 2:
        path = path.with_name(path.name + ".png")
        with atomic(path) as draft:
            Image.fromarray(np.ascontiguousarray(pixels.T)).save(draft, format="PNG")
        return path
    path = path.with_name(path.name + ".nii.gz")
    with atomic(path) as draft:
        nib.save(clean_image(pixels, affine), draft)
    return path


def source(item: Mapping[str, Any], key: str) -> str:
    """Return the absolute path of the file that `item[key]` was loaded from, or an empty text."""
    value = item.get(key)
    name = value.meta.get("filename_or_obj") if isinstance(value, MetaTensor) else None
    return str(Path(str(name)).resolve()) if name else ""


def _affine(tensor: MetaTensor) -> NDArray:
    return np.asarray(tensor.affine.cpu(), dtype=float)
