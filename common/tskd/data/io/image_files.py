"""2-D images and masks: find them, pair them, read them as they are meant, write them without metadata.

An array is [rows, columns] or [rows, columns, 3], uint8, upright as the camera's EXIF orientation says.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tskd.data.datalist import IGNORE
from tskd.errors import TskdError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_EIGHT_BIT = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files of a folder in order of their names; hidden files are passed over.

    Raises:
        TskdError: no such folder, or no image in it.
    """
    if not Path(folder).is_dir():
        raise TskdError(f"{folder}: expected a folder with images, found none. Correct the path.")
    found = sorted(
        path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise TskdError(f"{folder}: expected images ({', '.join(SUFFIXES)}), found none. Correct the path.")
    return found


def pair(images: Sequence[Path], masks: Sequence[Path], mask_suffix: str = "") -> list[tuple[Path, Path]]:
    """Images with their masks: the mask of `a.jpg` is `a<mask_suffix>.png`, or any other image format.

    Raises:
        TskdError: images without a mask, masks without an image, or two files of one name.
    """
    by_stem: dict[str, Path] = {}
    for mask in masks:
        stem = mask.stem.removesuffix(mask_suffix) if mask_suffix else mask.stem
        if stem in by_stem:
            raise TskdError(f"{mask}: expected one mask for '{stem}', found {by_stem[stem].name} too. Remove one.")
        by_stem[stem] = mask
    alone = [path.name for path in images if path.stem not in by_stem]
    left = sorted(by_stem[stem].name for stem in by_stem.keys() - {path.stem for path in images})
    if alone or left:
        raise TskdError(
            f"masks: expected one file <image>{mask_suffix}.png for each image; "
            f"{len(alone)} images have none ({', '.join(alone[:5]) or '-'}), "
            f"{len(left)} masks have no image ({', '.join(left[:5]) or '-'}). "
            "Give the ending of the masks' names (--mask-suffix), or put images without a mask into a folder of "
            "their own (--unlabelled)."
        )
    return [(path, by_stem[path.stem]) for path in images]


def colour_channels(path: Path) -> int:
    """1 for a grey image, 3 for a coloured one, as the file says.

    Raises:
        TskdError: an unreadable file, or more than 8 bits a channel.
    """
    return 1 if _target_mode(_open(path), path) == "L" else 3


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image as uint8 [rows, columns] (1 channel) or [rows, columns, 3], upright; alpha is dropped.

    Raises:
        TskdError: as `colour_channels`.
    """
    image = _open(path)
    image = image.convert(_target_mode(image, path))
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def mask_values(path: Path) -> np.ndarray:
    """A mask as the file has it, one channel, [rows, columns].

    Raises:
        TskdError: an unreadable file or a coloured mask.
    """
    values = np.asarray(_open(path))
    if values.ndim == 3:
        colours = values[..., : 3 if values.shape[2] > 2 else 1]
        if (colours != colours[..., :1]).any():
            raise TskdError(
                f"{path}: expected a mask of one channel, found colours. Write the index of the class into a grey PNG."
            )
        values = colours[..., 0]
    return values


def distinct(values: np.ndarray) -> list[int]:
    """The values of an array in order; of one of 8 bits much sooner than `np.unique` finds them."""
    if values.dtype == np.uint8:
        return np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    return np.unique(values).tolist()


def read_mask(path: Path, structures: int) -> np.ndarray:
    """A mask as uint8 class indices [rows, columns].

    With one structure a black and white mask (0 and one other value) is read as 0 and 1. Otherwise the values are
    class indices 0 to `structures`, and 255 for pixels without a label.

    Raises:
        TskdError: any other value, or as `mask_values`.
    """
    values = mask_values(path)
    found = distinct(values)
    drawn = set(found) - {0}
    if structures == 1 and len(drawn) == 1:
        return (values > 0).astype(np.uint8)
    if drawn <= {*range(1, structures + 1), IGNORE} and drawn != {IGNORE}:
        return values.astype(np.uint8)
    listed = ", ".join(map(str, found[:12])) + (", ..." if len(found) > 12 else "")
    if path.suffix.lower() in (".jpg", ".jpeg"):
        remedy = "JPEG stores grey values that nobody drew: save the mask as PNG."
    else:
        remedy = "Name as many structures as there are, or write class indices."
    raise TskdError(
        f"{path}: expected class indices 0 to {structures} (255: no label), or black and white for one structure, "
        f"found {listed}. {remedy}"
    )


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [rows, columns(, 3)] as PNG that holds pixels and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG", compress_level=3)


def _open(path: Path) -> Image.Image:
    """The image, upright, read to its end."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TskdError(f"{path}: expected a readable image, found {error}. Copy or convert it again.") from error


def _target_mode(image: Image.Image, path: Path) -> str:
    """'L' or 'RGB'; a palette of greys counts as grey."""
    if image.mode not in _EIGHT_BIT:
        raise TskdError(
            f"{path}: expected an image of 8 bits a channel, grey or RGB, found mode {image.mode}. Convert it to 8 "
            "bits with the intensity window that you want."
        )
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return "L" if (palette == palette[:, :1]).all() else "RGB"
    return _EIGHT_BIT[image.mode]
