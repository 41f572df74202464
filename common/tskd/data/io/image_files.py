"""2-D images and masks: find them, pair them, read them as they are meant, write them without metadata.

An array is [rows, columns] or [rows, columns, 3], uint8, upright as the camera's EXIF orientation says.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from tskd.data.datalist import IGNORE
from tskd.data.io.picture_header import open_picture, orientation, picture_pixels, sample_bits, turn_upright
from tskd.errors import TskdError
from tskd.file_content import once_a_file
from tskd.files import composed

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
EXIF = ("upright", "stored")  # what masks were drawn on, where their images are turned by EXIF
_EIGHT_BIT = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files of a folder in order of their names; hidden files are passed over.

    Raises:
        TskdError: no such folder, or no image in it.
    """
    if not Path(folder).is_dir():
        raise TskdError(f"{folder}: expected a folder with images, found none. Correct the path.")
    paths = sorted(
        path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise TskdError(f"{folder}: expected images ({', '.join(SUFFIXES)}), found none. Correct the path.")
    return paths


def pair(images: Sequence[Path], masks: Sequence[Path], mask_suffix: str = "") -> list[tuple[Path, Path]]:
    """Pair images with their masks: the mask of `a.jpg` is `a<mask_suffix>.png`, or any other image format.

    Raises:
        TskdError: images without a mask, masks without an image, or two files of one name.
    """
    by_stem: dict[str, Path] = {}
    for mask in masks:
        stem = composed(mask.stem).removesuffix(composed(mask_suffix))
        if stem in by_stem:
            raise TskdError(f"{mask}: expected one mask for '{stem}', found {by_stem[stem].name} too. Remove one.")
        by_stem[stem] = mask
    stems = [composed(path.stem) for path in images]
    alone = [path.name for path, stem in zip(images, stems, strict=True) if stem not in by_stem]
    left = sorted(by_stem[stem].name for stem in by_stem.keys() - set(stems))
    if alone or left:
        raise TskdError(
            f"masks: expected one file <image>{mask_suffix}.png for each image; "
            f"{len(alone)} images have none ({', '.join(alone[:5]) or '-'}), "
            f"{len(left)} masks have no image ({', '.join(left[:5]) or '-'}). "
            "Give the ending of the masks' names (--mask-suffix), or put images without a mask into a folder of "
            "their own (--unlabelled)."
        )
    return [(path, by_stem[stem]) for path, stem in zip(images, stems, strict=True)]


def colour_channels(path: Path) -> int:
    """Return 1 for a grey image, 3 for a coloured one, as the file says.

    Raises:
        TskdError: an unreadable file, or more than 8 bits a channel.
    """
    return 1 if _target_mode(open_picture(path), path) == "L" else 3


def read_image(path: Path, channels: int) -> np.ndarray:
    """Return an image as uint8 [rows, columns] (1 channel) or [rows, columns, 3], upright; alpha is dropped.

    Raises:
        TskdError: as `colour_channels`.
    """
    image = open_picture(path)
    mode, target = _target_mode(image, path), "L" if channels == 1 else "RGB"
    if image.mode == mode == target:
        return picture_pixels(path)
    return np.asarray(image.convert(mode).convert(target))


def colour_note(path: Path, channels: int) -> str:
    """Return what to know of a picture whose colours are not those that a network has learned from; "" of others.

    Args:
        path: the picture; one of three equal channels is grey.
        channels: of the network's images, 1 or 3.

    Raises:
        TskdError: as `colour_channels`.
    """
    if (stored := colour_channels(path)) == channels:
        return ""
    if stored == 1:
        return "a grey picture, where the network has learned from colours"
    colours = read_image(path, 3)
    grey = (colours == colours[..., :1]).all()
    return "" if grey else "a picture in colour, where the network has learned from grey ones"


@dataclass(frozen=True)
class StoredMask:
    """A mask as its file means it.

    Args:
        values: [rows, columns], one channel.
        colours: of the positions used in a coloured palette, which then are the values; else empty.
    """

    values: np.ndarray
    colours: Mapping[int, tuple[int, ...]]

    @cached_property
    def present(self) -> list[int]:
        """The values that are drawn, in order."""
        return distinct(self.values)


@once_a_file(lambda mask: mask.values.nbytes)
def stored_mask(path: Path) -> StoredMask:
    """Return a mask as its file means it, upright as its own EXIF orientation says.

    Grey values count, of a palette too where all of its used colours are grey; in a coloured palette the positions are
    the values. The 2 or 4 bits of a grey PNG or TIFF are taken as they are stored (0 to 3, or 15).

    Raises:
        TskdError: an unreadable file, a coloured mask, a palette with another colour than black at position 0, or one
            that may mean either its positions or its greys.
    """
    image = open_picture(path)
    values = picture_pixels(path)
    if image.mode in ("P", "PA"):
        return _palette_mask(path, values if values.ndim == 2 else values[..., 0], image)
    if values.ndim == 3:
        colours = values[..., : 3 if values.shape[2] > 2 else 1]
        if (colours != colours[..., :1]).any():
            raise TskdError(
                f"{path}: expected a mask of one channel, found colours. Write the index of the class into a grey PNG."
            )
        values = colours[..., 0]
    if image.mode == "L" and (bits := sample_bits(path)) in (2, 4):  # Pillow stretches them to 0 to 255
        values = values // (255 // (2**bits - 1))
    return StoredMask(values, {})


def _palette_mask(path: Path, positions: np.ndarray, image: Image.Image) -> StoredMask:
    palette = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = distinct(positions)
    if used[-1] >= len(palette):
        raise TskdError(f"{path}: expected a palette with all colours used, found none at position {used[-1]}.")
    grey = (palette == palette[:, :1]).all(axis=1)
    if grey.all() or all(grey[k] and palette[k, 0] == k for k in used):
        return StoredMask(palette[positions, 0], {})
    if palette[0].any():
        raise TskdError(
            f"{path}: expected a palette with black at position 0 (the background), found the colour "
            f"{palette[0].tolist()}. Save the mask as a grey PNG with the index of the class."
        )
    if grey[used].all() and (len(used) > 2 or palette[used, 0].max() < 32):  # nothing says which
        raise TskdError(
            f"{path}: expected class indices, found a palette of colours of which only greys are used (positions "
            f"{used[:8]}, greys {palette[used[:8], 0].tolist()}). Save the mask as a grey PNG with the index of the "
            "class."
        )
    return StoredMask(positions, {k: tuple(palette[k].tolist()) for k in used})


def palette_problems(masks: Mapping[Path, Mapping[int, tuple[int, ...]]]) -> list[str]:
    """List each file whose coloured palette gives a position another colour than an earlier file does."""
    first: dict[int, tuple[tuple[int, ...], Path]] = {}
    position_of: dict[tuple[int, ...], tuple[int, Path]] = {}
    problems = []
    for path, colours in masks.items():
        for position, colour in colours.items():
            seen, where = first.setdefault(position, (colour, path))
            at, there = position_of.setdefault(colour, (position, path))
            if seen != colour or at != position:
                prior, what = (where, f"{list(seen)}") if seen != colour else (there, f"that colour at {at}")
                problems.append(
                    f"{path}: expected the palette of {prior.name}, found {list(colour)} at position {position}, where "
                    f"the other has {what}. Save all masks as grey PNG with the index of the class."
                )
                break
    return problems


def mask_values(path: Path) -> np.ndarray:
    """Return the values of `stored_mask`, which raises the same errors."""
    return stored_mask(path).values


def mask_turn(image: Path, mask: Path, exif: str | None) -> int:
    """Return the EXIF orientation by which a mask, read upright, is still to be turned to lie on its upright image.

    Args:
        image: file of the image.
        mask: file of its mask.
        exif: for an image with an orientation and a mask without: the mask was drawn on the "upright" picture, or on
            the "stored" pixels; None: not known.

    Raises:
        TskdError: orientations that differ, and nothing says what the mask was drawn on.
    """
    drawn, wanted = orientation(mask), orientation(image)
    if drawn == wanted:
        return 1
    if drawn != 1:
        raise TskdError(
            f"{mask}: expected the EXIF orientation of its image ({wanted}) or none, found {drawn}. Remove it from the "
            "mask, or save both upright."
        )
    if exif is None:
        raise TskdError(
            f"{image}: expected image and mask turned alike, found the EXIF orientation {wanted} in the image and none "
            f"in {mask.name}. Say what the masks were drawn on: the picture as viewers show it (--exif upright), or "
            "the pixels as stored (--exif stored)."
        )
    return wanted if exif == "stored" else 1


def distinct(values: np.ndarray) -> list[int]:
    """Return the values of an array in order; of one of 8 bits much sooner than `np.unique` finds them."""
    if values.dtype in (np.uint8, np.bool_):
        values = values.view(np.uint8)
        return np.flatnonzero(np.bincount(values.ravel(order="K"), minlength=256)).tolist()
    return np.unique(values).tolist()


def read_mask(path: Path, structures: int, turn: int = 1) -> np.ndarray:
    """Read a mask as uint8 class indices [rows, columns].

    With one structure a black and white mask (0 and one other value) is read as 0 and 1. Otherwise the values are
    class indices 0 to `structures`, and 255 for pixels without a label. `turn` is an EXIF orientation to turn by.

    Raises:
        TskdError: any other value, or as `mask_values`.
    """
    stored = stored_mask(path)
    values, present = turn_upright(stored.values, turn), stored.present
    drawn = set(present) - {0}
    if structures == 1 and len(drawn) == 1:
        return (values > 0).astype(np.uint8)
    if drawn <= {*range(1, structures + 1), IGNORE} and drawn != {IGNORE}:
        return values.astype(np.uint8)
    listed = ", ".join(map(str, present[:12])) + (", ..." if len(present) > 12 else "")
    if path.suffix.lower() in (".jpg", ".jpeg"):
        remedy = "JPEG stores grey values that nobody drew: save the mask as PNG."
    else:
        remedy = "Name as many structures as there are, or write class indices."
    raise TskdError(
        f"{path}: expected class indices 0 to {structures} (255: no label), or black and white for one structure, "
        f"found {listed}. {remedy}"
    )


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [rows, columns(, 3)] as PNG that holds pixels and nothing else.

    Filtered rows are compressed by their repetitions alone: in 0.6 of the time of zlib's search, to files of that size.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)


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
