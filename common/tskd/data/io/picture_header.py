"""What a picture file says about its own numbers: pages, bits, checksums, transparency, the camera's orientation.

What a reader would drop or round without a word is refused here, for preparation and `tskd check` alike.
"""

import threading
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tskd.data.io.limits import PICTURE, max_bytes, refuse_larger
from tskd.errors import TskdError
from tskd.file_content import content, once_a_file, opened

ORIENTATION = 0x0112  # EXIF tag
_BITS, _SAMPLE_FORMAT, _SUBFILE = 258, 339, 254  # TIFF tags
_PNG = b"\x89PNG\r\n\x1a\n"
_LIMIT = threading.Lock()
_TURNS = {  # EXIF orientation -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * max(len(image.getbands()), 1)


@once_a_file(_bytes)
def open_picture(path: Path) -> Image.Image:
    """Return the picture, upright, read to its end; not to be changed, as it is kept for the next call.

    Raises:
        TskdError: an unreadable or damaged file, several pages, more than 8 bits a sample of a coloured picture,
            samples that are no unsigned numbers, or pixels that are not opaque.
    """
    try:
        _refuse_damaged_png(path)
        image = as_stored(path)
        refuse_larger(_bytes(image), PICTURE, path)
        if getattr(image, "n_frames", 1) > 1:
            image = _opened(path)  # of its own, as it is turned over
            _refuse_pages(image, path)
            image.seek(0)
        _refuse_samples(image, path)
        image.load()
        upright = image if orientation(path) == 1 else ImageOps.exif_transpose(image)
        _refuse_transparency(upright, path)
        return upright
    except TskdError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise TskdError(f"{path}: expected a readable image, found {error}. Copy or convert it again.") from error


def picture_pixels(path: Path) -> np.ndarray:
    """Return the pixels of `open_picture`, which raises the same errors; not to be changed."""
    image = open_picture(path)
    return stored_pixels(path) if image is as_stored(path) else np.asarray(image)


@once_a_file(lambda pixels: pixels.nbytes)
def stored_pixels(path: Path) -> np.ndarray:
    """Return the pixels of `as_stored`, which raises the same errors; not to be changed."""
    return np.asarray(as_stored(path))


@once_a_file(_bytes)
def as_stored(path: Path) -> Image.Image:
    """Return the picture as Pillow reads it, not to be changed; its pixels are read when they are first asked for.

    Raises:
        OSError, ValueError, SyntaxError: it cannot be read, by Pillow's reasons.
    """
    return _opened(path)


def _opened(path: Path) -> Image.Image:
    """Open a picture without Pillow's own limit of pixels, which is no key of ours."""
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(opened(path))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@once_a_file(lambda _: 0)
def orientation(path: Path) -> int:
    """Return the EXIF orientation, 1 where there is none; 1 for a file that `open_picture` refuses."""
    try:
        image = as_stored(path)
        if image.format == "TIFF":
            image = _opened(path)  # one whose pixels have been read is upright, and no longer says how it was stored
        value = image.getexif().get(ORIENTATION, 1) if _bytes(image) <= max_bytes(PICTURE) else 1
    except (OSError, ValueError, SyntaxError):
        return 1
    return value if value in _TURNS else 1


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels [rows, columns] turned as an EXIF orientation says."""
    if orientation not in _TURNS:
        return pixels
    return np.asarray(Image.fromarray(pixels).transpose(_TURNS[orientation]))


def sample_bits(path: Path) -> int:
    """Return the bits of a stored sample; 8 where the format has no others."""
    head = content(path)[:25]
    if head.startswith(_PNG):
        return head[24]
    return max(getattr(as_stored(path), "tag_v2", {}).get(_BITS, (8,)))


def _refuse_damaged_png(path: Path) -> None:
    """Verify the checksum of every chunk, which Pillow does for a few, and that nothing follows the last one."""
    png = content(path)
    if not png.startswith(_PNG):
        return
    at, name = len(_PNG), b""
    while name != b"IEND":
        size, name = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        chunk, check = png[at + 4 : at + 8 + size], png[at + 8 + size : at + 12 + size]
        if len(check) < 4 or zlib.crc32(chunk).to_bytes(4, "big") != check:
            raise TskdError(
                f"{path}: expected a readable image, found a chunk {name.decode('latin-1')!r} whose checksum does not "
                "fit. Copy the file again."
            )
        at += 12 + size
    if png[at:].strip(b"\0"):
        raise TskdError(
            f"{path}: expected the end of the PNG, found {len(png) - at} bytes after it (another picture?). "
            "Save each picture into a file of its own."
        )


def _refuse_pages(image: Image.Image, path: Path) -> None:
    """Several pages or frames, unless the others are smaller copies of the first (pyramids, thumbnails)."""
    pages = getattr(image, "n_frames", 1)
    first, reduced = image.size, True
    for page in range(1, pages):
        image.seek(page)
        marked = bool(getattr(image, "tag_v2", {}).get(_SUBFILE, 0) & 1)
        smaller = image.size[0] < first[0] and image.size[1] < first[1]
        alike = abs(image.size[0] * first[1] / (image.size[1] * first[0]) - 1) < 0.05
        reduced = reduced and smaller and (marked or alike)
    if not reduced:
        raise TskdError(
            f"{path}: expected one picture a file, found {pages} pages. Save each page as a file of its own; for "
            "training, say who the patient is (--group-pattern)."
        )


def _refuse_samples(image: Image.Image, path: Path) -> None:
    bits = sample_bits(path)
    if bits > 8 and image.mode in ("RGB", "RGBA", "LA", "CMYK", "YCbCr"):  # Pillow keeps the upper 8 of them
        raise TskdError(
            f"{path}: expected an image of 8 bits a channel, found {bits} bits. Convert it to 8 bits with the "
            "intensity window that you want."
        )
    formats = set(getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (1,)))
    if formats - {1, 4} and image.mode not in ("F", "I", "I;16S"):
        raise TskdError(
            f"{path}: expected unsigned samples, found the TIFF sample format {sorted(formats)} (2: signed). Convert "
            "it to 8 bits without a sign."
        )


def _refuse_transparency(image: Image.Image, path: Path) -> None:
    """Pixels that are not opaque: the numbers below are not what a viewer shows, nor always the same."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if (alpha != 255).any():
        share = float(np.mean(alpha != 255))
        transparent = "less than 1%" if share < 0.01 else f"{share:.0%}"
        raise TskdError(
            f"{path}: expected opaque pixels, found {transparent} that are transparent in part or whole. "
            "Flatten the picture onto the background that is meant (a mask: onto black)."
        )
