"""Look at every image and mask before anything is written, and report all problems at once."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tskd.data.datalist import IGNORE
from tskd.data.io.image_files import (
    colour_channels,
    mask_turn,
    palette_problems,
    read_image,
    read_mask,
    stored_mask,
)
from tskd.data.io.picture_header import open_picture, orientation
from tskd.data.plausibility import EMPTY_MASKS, intensity_range, unit_warnings, warn
from tskd.errors import TskdError
from tskd.file_content import read_ahead, settled

_KEPT = 1 << 28  # bytes of pixels that wait in memory to be written
UNKNOWN_PATIENTS = "unknown: each image counts as a patient of its own, identical images as one"


@dataclass(frozen=True)
class Picture:
    """One image's files: name, patient ("" if unknown), image, mask if there is one, second observer's mask.

    `region` is a mask of the pixels that are scored, such as a camera's field of view.
    """

    case: str
    group: str
    image: Path
    label: Path | None = None
    label_2nd: Path | None = None
    region: Path | None = None


@dataclass(frozen=True)
class Findings:
    """What the images have in common: their channels; and sha256 of each case's pixels, and of all masks together.

    `exif` says what masks were drawn on where only their images have an EXIF orientation. `kept` holds the pixels as
    they are to be written, by (image, itself or its mask), of as many as fit into memory.
    """

    channels: int
    pixels: Mapping[str, str]
    masks: str
    exif: str | None = None
    kept: dict[tuple[Path, Path], np.ndarray] = field(default_factory=dict, repr=False)


def inspect_images(
    pictures: Sequence[Picture], structures: int, channels: int | None = None, exif: str | None = None
) -> Findings:
    """Read every file once.

    Args:
        pictures: the files.
        structures: number of classes without the background.
        channels: 1 or 3 converts every image to grey or RGB; None takes what all of them are.
        exif: as `mask_turn` takes it.

    Raises:
        TskdError: a line for each file that cannot be used, mixed channels, sizes that differ, names used twice.
    """
    problems = _repeated(pictures)
    kinds: dict[int, Path] = {}
    pixels: dict[str, str] = {}
    masks = hashlib.sha256()
    palettes: dict[Path, Mapping[int, tuple[int, ...]]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    kept: dict[tuple[Path, Path], np.ndarray] = {}
    room = _KEPT
    seen: set[int] = set()
    white: dict[str, Path] = {}  # what 255 is -> a file that says so
    for picture in read_ahead(pictures, read_pictures):
        try:
            num_channels = colour_channels(picture.image)
            kinds.setdefault(num_channels, picture.image)
            image = read_image(picture.image, channels or num_channels)
            pixels[picture.case] = _sha256(image)
            if (room := room - image.nbytes) >= 0:
                kept[picture.image, picture.image] = image
            ranges[picture.case] = intensity_range(image)
            if picture.region is not None:
                region = read_mask(picture.region, 1)
                masks.update(f"{picture.case} region {_sha256(region)}".encode())
                refuse_size_mismatch(picture.region, region, image)
            for path in (picture.label, picture.label_2nd):
                if path is not None:
                    turn = mask_turn(picture.image, path, exif)
                    mask = read_mask(path, structures, turn)
                    masks.update(f"{picture.case} {_sha256(mask)}".encode())
                    if (room := room - mask.nbytes) >= 0:
                        kept[picture.image, path] = mask
                    refuse_size_mismatch(path, mask, image, orientation(picture.image))
                    stored = stored_mask(path)
                    palettes[path] = stored.colours
                    seen |= set(stored.present)
                    drawn = set(stored.present) - {0}
                    if IGNORE in drawn:
                        white.setdefault("the structure" if drawn == {IGNORE} else "a pixel without a label", path)
                    elif drawn == {1}:  # class indices, where 255 means no label
                        white.setdefault("a pixel without a label (1 is the structure)", path)
        except TskdError as error:
            problems.append(str(error))
    problems += palette_problems(palettes)
    if seen == {0}:
        problems.append(EMPTY_MASKS)
    if len(kinds) > 1 and channels is None:
        problems.append(
            f"channels: expected all images grey or all RGB, found {kinds[1].name} grey and {kinds[3].name} RGB. "
            "Say which with --channels 1 or --channels 3."
        )
    if "the structure" in white and len(white) > 1:
        meaning, path = next((meaning, path) for meaning, path in white.items() if meaning != "the structure")
        problems.append(
            f"masks: expected one meaning of 255, found it as the structure in {white['the structure'].name} and as "
            f"{meaning} in {path.name}. Write class indices in all of them."
        )
    if problems:
        shown = problems[:20] + [f"and {len(problems) - 20} more"] * (len(problems) > 20)
        raise TskdError("\n  - ".join([f"{len(problems)} problem{'s' * (len(problems) > 1)} with the images", *shown]))
    warn(unit_warnings(ranges, offsets=False))
    return Findings(channels or next(iter(kinds)), pixels, masks.hexdigest(), exif, kept)


def read_pictures(picture: Picture) -> None:
    """Read the files of a picture, which are kept until they are used."""
    for path in (picture.image, picture.label, picture.label_2nd):
        if path is not None and settled(path):
            open_picture(path) if path == picture.image else stored_mask(path)


def one_group_an_image(pictures: Sequence[Picture], pixels: Mapping[str, str]) -> list[Picture]:
    """Make each picture of an unknown patient a group, but identical images share one."""
    first: dict[str, str] = {}
    return [replace(picture, group=first.setdefault(pixels[picture.case], picture.case)) for picture in pictures]


def refuse_shared_images(
    pictures: Sequence[Picture], pixels: Mapping[str, str], split: Mapping[str, Sequence[str]]
) -> None:
    """Refuse identical images of two patients in two lists.

    Raises:
        TskdError: naming both files of each such pair.
    """
    home = {group: name for name, groups in split.items() for group in groups}
    first: dict[str, Picture] = {}
    pairs = []
    for picture in pictures:
        twin = first.setdefault(pixels[picture.case], picture)
        if home[twin.group] != home[picture.group]:
            pairs.append(f"{twin.image} ({home[twin.group]}) and {picture.image} ({home[picture.group]})")
    if pairs:
        raise TskdError(
            "identical images: expected each in one list, as a copy in another makes every measured number too good; "
            f"found {'; '.join(pairs[:5])}. Remove one of the two, or give both to one patient."
        )


def _repeated(pictures: Sequence[Picture]) -> list[str]:
    first: dict[str, Path] = {}
    return [
        f"{picture.image}: expected a file name of its own, found {first[picture.case]} too. Rename one of them."
        for picture in pictures
        if first.setdefault(picture.case, picture.image) is not picture.image
    ]


def refuse_size_mismatch(path: Path, mask: np.ndarray, image: np.ndarray, turned: int = 1) -> None:
    """Refuse a mask that has not the size of its image; `turned` is the image's EXIF orientation.

    Raises:
        TskdError: with both sizes.
    """
    if mask.shape != image.shape[:2]:
        word = ""
        if mask.shape == image.shape[1::-1] and turned != 1:
            word = f" The image has the EXIF orientation {turned}, and its mask does not lie as it does (--exif)."
        raise TskdError(
            f"{path}: expected the size of its image, {image.shape[1]} x {image.shape[0]}, found {mask.shape[1]} x "
            f"{mask.shape[0]}.{word} Correct the pair."
        )


def _sha256(pixels: np.ndarray) -> str:
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
