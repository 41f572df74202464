"""The images and masks below a folder, matched by their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from tskd.data.io.image_files import SUFFIXES
from tskd.data.io.nifti import NIFTI
from tskd.errors import TskdError
from tskd.files import composed, files_below
from tskd.new_study import names
from tskd.predict.dicom_tree import group_series, read_header

VOLUMES = ("volume", "series")
DESCRIPTIONS = ("dataset.json", "splits_final.json")  # of nnU-Net, read elsewhere


@dataclass(frozen=True)
class Found:
    """An image or mask.

    Attributes:
        path: file, or the folder of a DICOM series.
        relative: the path below the folder that was named.
        kind: "picture", "volume" (a NIfTI file) or "series" (DICOM).
        modality: DICOM's, "" elsewhere.
        patient: DICOM's PatientID, "" elsewhere.
        channel: nnU-Net's number, None where names have none.
    """

    path: Path
    relative: PurePath
    kind: str
    modality: str = ""
    patient: str = ""
    channel: int | None = None

    @property
    def stem(self) -> str:
        """The name without endings and channel."""
        name = composed(self.path.name) if self.kind == "series" else names.stem(self.path.name)
        return name if self.channel is None else name[:-5]


@dataclass(frozen=True)
class Case:
    """An image with its mask, None where it has none, and the list that its folder names, "" where it names none."""

    image: Found
    mask: Found | None
    section: str = ""


@dataclass
class Tree:
    """What lies below a folder.

    Attributes:
        cases: images, with their masks.
        channels: how many channels of a case are files of their own.
        left: what is not used: reason -> names.
    """

    cases: list[Case]
    channels: int = 1
    left: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def volumes(self) -> bool:
        """Whether the images are volumes."""
        return self.cases[0].image.kind in VOLUMES


def read_tree(images: Path, masks: Path | None = None, channel: int = 0) -> Tree:
    """Find images and masks.

    Args:
        images: folder of images, or of both.
        masks: folder of masks; None tells them from images by the words in their names.
        channel: which one to take where a case has several files (`_0000`, `_0001`).

    Raises:
        TskdError: no images, no masks, images of several kinds, or two masks for one image.
    """
    left: dict[str, list[str]] = defaultdict(list)
    files = list(_files(images, left))
    if masks is None:
        pictured = [item for item in files if not _mask(item)]
        drawn = [item for item in files if _mask(item)]
    else:
        drawn = list(_files(masks, left))
        taken = {item.path for item in drawn}
        same = masks.resolve() == images.resolve()
        pictured = [item for item in files if item.path not in taken or (same and not _mask(item))]
        drawn = [item for item in drawn if not same or _mask(item)]
    pictured = _one_kind(images, pictured, left)
    if not drawn:
        raise TskdError(
            f"{images}: expected masks beside the {len(pictured)} images, found no folder or file whose name says so "
            "(masks, labels, labelsTr, x_mask.png). Name their folder: tskd init IMAGES MASKS."
        )
    second = [item for item in drawn if names.is_second(item.relative)]
    if len(second) < len(drawn):
        drawn = [item for item in drawn if item not in second]
        left["masks of a second observer"] += [str(item.relative) for item in second]
    pictured, count = _channel(images, pictured, drawn, channel)
    return Tree(_match(masks or images, pictured, drawn, left), count, left)


def _mask(item: Found) -> bool:
    return item.kind != "series" and names.is_mask(item.relative)


def _files(root: Path, left: dict[str, list[str]]) -> Iterator[Found]:
    if not root.is_dir():
        raise TskdError(f"{root}: expected a folder with images, found none. Correct the path.")
    headers = []
    for path in files_below(root):
        relative = path.relative_to(root)
        if path.name.lower().endswith(NIFTI):
            yield Found(path, relative, "volume")
        elif path.suffix.lower() in SUFFIXES:
            yield Found(path, relative, "picture")
        elif path.name not in DESCRIPTIONS and (header := read_header(path)) is not None:
            headers.append((path, header))
        elif path.name not in DESCRIPTIONS:
            left["other files"].append(str(relative))
    series, objects = group_series(headers)
    for reason, words in objects.items():
        left[reason] += words
    modality = {path: str(header.get("Modality", "")) for path, header in headers}
    several: dict[Path, int] = defaultdict(int)
    for one in series:
        several[one.files[0].parent] += 1
    for one in series:
        folder_of = one.files[0].parent
        if several[folder_of] > 1 or len({file.parent for file in one.files}) > 1:
            raise TskdError(
                f"{folder_of}: expected a folder for each DICOM series, found {several[folder_of]} series in it "
                f"({one.display_name}). Sort them into folders first, for example with dcm2niix or dicomsort."
            )
        yield Found(folder_of, folder_of.relative_to(root), "series", modality[one.files[0]], one.patient)


def _one_kind(root: Path, items: Sequence[Found], left: dict[str, list[str]]) -> list[Found]:
    """Those of the kind that there are most of; few of another kind are left out, many are an error."""
    if not items:
        raise TskdError(
            f"{root}: expected images (NIfTI, DICOM, {', '.join(SUFFIXES)}), found none. Correct the path; other "
            "formats have to be converted first."
        )
    kinds: dict[str, list[Found]] = defaultdict(list)
    for item in items:
        kinds[item.kind].append(item)
    most = max(kinds, key=lambda kind: len(kinds[kind]))
    for kind, kind_items in kinds.items():
        if kind != most and not ({kind, most} <= set(VOLUMES)):
            left[f"{kind}s beside the {most}s"] += [str(item.relative) for item in kind_items]
    return [item for item in items if item.kind == most or {item.kind, most} <= set(VOLUMES)]


def _channel(root: Path, items: list[Found], masks: Sequence[Found], channel: int) -> tuple[list[Found], int]:
    """Return the images of one channel and the number of channels, where images are named as nnU-Net names them."""
    numbered = names.channels(names.stem(item.path.name) for item in items if item.kind != "series")
    if numbered is None or any(item.kind == "series" for item in items):
        return items, 1
    first = {case for case, number in numbered.values() if number == 0}
    if first != {case for case, _ in numbered.values()} or names.channels(names.stem(m.path.name) for m in masks):
        return items, 1  # the four digits are part of the name
    items = [replace(item, channel=numbered[names.stem(item.path.name)][1]) for item in items]
    numbers = sorted({item.channel for item in items if item.channel is not None})
    if channel not in numbers:
        raise TskdError(f"{root}: expected one of the channels {numbers}, found channel {channel} asked for.")
    return [item for item in items if item.channel == channel], len(numbers)


def _match(root: Path, images: Sequence[Found], masks: Sequence[Found], left: dict[str, list[str]]) -> list[Case]:
    """Images with their masks: by list and name, or where names repeat by the folders above them, too."""
    if {item.kind for item in images} <= set(VOLUMES) and all(item.kind == "picture" for item in masks):
        raise TskdError(
            f"{root}: expected a mask volume (NIfTI) for each of the {len(images)} volumes, found {len(masks)} "
            "pictures. Stack the pictures of each volume into one NIfTI file with the volume's geometry."
        )
    best: list[Case] | None = None
    alone: list[Found] = []
    for full in (False, True):
        keys = [_keys(item, full) for item in images]
        drawn: dict[tuple, list[Found]] = defaultdict(list)
        for mask in masks:
            drawn[_keys(mask, full)[0]].append(mask)
        chosen = [next((key for key in tried if key in drawn), tried[0]) for tried in keys]
        used = {key for key in chosen if key in drawn}
        twice = sum(key in drawn for key in chosen) > len(used) or any(len(each) > 1 for each in drawn.values())
        unique = not twice and (images[0].kind == "series" or len(set(chosen)) == len(chosen))
        cases = [
            Case(item, drawn[key][0] if key in drawn else None, names.section(item.relative))
            for item, key in zip(images, chosen, strict=True)
        ]
        if unique and (best is None or _labelled(cases) > _labelled(best)):
            best, alone = cases, [mask for key, each in drawn.items() if key not in used for mask in each]
    if best is None:
        raise _ambiguous(root, images, masks)
    if not _labelled(best):
        raise TskdError(
            f"{root}: expected masks with the names of their images, found no pair: {images[0].relative} and "
            f"{masks[0].relative}, for example. Name them alike, or list them in a table (`tskd prepare "
            f"{'volumes' if images[0].kind in VOLUMES else 'images-masks'} --table`)."
        )
    left["masks without an image"] += [str(mask.relative) for mask in alone]
    return best


def _labelled(cases: Sequence[Case]) -> int:
    return sum(case.mask is not None for case in cases)


def _keys(item: Found, full: bool) -> list[tuple]:
    """Return what a file has to share with its partner; a DICOM series tries its folders' names and its PatientID."""
    part = names.section(item.relative)
    if item.kind == "series":
        tried = [*map(composed, reversed(item.relative.parts)), item.patient]
        return [(part, names.core(name)) for name in tried if name] or [(part, item.path.name)]
    parents = names.kept_parents(item.relative) if full else ()
    return [(part, *parents, names.core(item.stem))]


def _ambiguous(root: Path, images: Sequence[Found], masks: Sequence[Found]) -> TskdError:
    groups: dict[tuple, list[Found]] = defaultdict(list)
    for item in masks:
        groups[_keys(item, True)[0]].append(item)
    double: Mapping[tuple, list[Found]] = {key: each for key, each in groups.items() if len(each) > 1}
    if double:
        each = next(iter(double.values()))
        return TskdError(
            f"{root}: expected one mask file an image, with 1, 2, ... for the structures, found {len(each)} for one: "
            f"{', '.join(str(item.relative) for item in each[:3])}. Merge the structures into one file."
        )
    twice: dict[tuple, list[Found]] = defaultdict(list)
    for item in images:
        twice[_keys(item, True)[0]].append(item)
    pair = next((each for each in twice.values() if len(each) > 1), list(images))
    return TskdError(
        f"{root}: expected names that differ, found {' and '.join(str(item.relative) for item in pair[:2])}, which one "
        "mask may belong to. Rename them."
    )
