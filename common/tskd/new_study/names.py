"""What the names of folders and files say: image or mask, which list, which channel, which patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from tskd.data.prepare.patients import several_of_one
from tskd.files import composed

_MASK = [
    *("mask", "masks", "label", "labels", "seg", "segs", "segmentation", "segmentations", "annotation", "annotations"),
    *("annot", "gt", "truth", "groundtruth", "manual", "manual1", "1stho", "2ndho"),
]
_IMAGE = [
    *("image", "images", "img", "imgs", "im", "photo", "photos", "picture", "pictures", "scan", "scans", "volume"),
    *("volumes", "input", "inputs", "raw", "data"),
]
_SECTION = {
    **dict.fromkeys(("train", "training", "tr"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}
_SECOND = ("2nd", "second", "observer2", "rater2", "2ndho")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")  # labelsTr, not 1stHO
_CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net


def tokens(name: str) -> list[str]:
    """Return the words of a name in lower case: `labelsTr` is labels, tr; `ground_truth` stays one word."""
    plain = re.sub(r"ground[-_ ]truth", "groundtruth", _CAMEL.sub("_", name), flags=re.IGNORECASE)
    return [token for token in re.split(r"[^a-z0-9]+", plain.lower()) if token]


def is_mask(relative: PurePath) -> bool:
    """Return whether a path is of a mask: a folder's words say so, or else the first or last word of the file's name.

    The nearest folder that says image or mask decides.
    """
    for part in reversed(relative.parts[:-1]):
        words = tokens(part)
        if any(word in _MASK for word in words):
            return True
        if any(word in _IMAGE for word in words):
            return False
    words = tokens(stem(relative.name))
    return bool(words) and (words[0] in _MASK or words[-1] in _MASK)


def is_second(relative: PurePath) -> bool:
    """Return whether a mask is a second observer's."""
    return any(word in _SECOND for part in relative.parts for word in tokens(part))


def section(relative: PurePath) -> str:
    """Return the list that a folder's name says: "training", "validation", "test", or "" where none does."""
    words = [word for part in relative.parts[:-1] for word in tokens(part)]
    return next((_SECTION[word] for word in words if word in _SECTION), "")


def stem(name: str) -> str:
    """Return a file's name without its endings, its letters composed."""
    name = composed(name)
    name = name[:-3] if name.lower().endswith(".gz") else name
    return name.rpartition(".")[0] or name


def core(name: str) -> str:
    """Return what is left of a stem without words for image and mask at either end: 7 of `image_7` and `7_mask`."""
    words = "|".join((*_MASK, *_IMAGE, "ground[-_ ]truth"))
    name = re.sub(rf"^(?:{words})(?:[-_ .]|(?=\d)|$)", "", name, flags=re.IGNORECASE)
    return re.sub(rf"(?:[-_ .]|^)(?:{words})$", "", name, flags=re.IGNORECASE)


def kept_parents(relative: PurePath) -> tuple[str, ...]:
    """Return the folders above a file, without those that only say image, mask or list."""
    empty = {*_MASK, *_IMAGE, *_SECOND, *_SECTION, "observer"}
    return tuple(part for part in relative.parts[:-1] if set(tokens(part)) - empty)


def channels(stems: Iterable[str]) -> dict[str, tuple[str, int]] | None:
    """Return stem -> (case, channel) where every name ends as nnU-Net's do (`_0000`), None where one does not."""
    matches = {each: _CHANNEL.search(each) for each in stems}
    if not matches or not all(matches.values()):
        return None
    return {each: (each[:-5], int(match[1])) for each, match in matches.items() if match}


def patients(stems: Sequence[str]) -> dict[str, str]:
    """Return stem -> patient, of names like those of several images of one patient (`p1_visit2`, both eyes of `07`)."""
    shared: dict[str, str] = {}
    for who, names in several_of_one(stems).items():
        for each in names:
            shared.setdefault(each, who)
    return shared
