"""What images and masks hold: channels, structures, intensities, and the size that keeps the masks' shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tskd.data.io.image_files import colour_channels, distinct, stored_mask
from tskd.data.io.nifti import as_label, load_volume, read_nifti
from tskd.errors import TskdError
from tskd.new_study.tree import VOLUMES, Case, Tree

READ = {True: 60, False: 1000}  # cases that are read, of volumes and of pictures
SIZES = (128, 256, 512)  # pixels along a side, for the student
KEPT = 0.93  # Dice of masks that were made small and large again, below which a size is too small
ONE_PIECE = 0.98  # share of a structure in its largest part, in every mask
HOUNSFIELD = -500.0  # only CT has values below
SHOWN = 10  # problems
NAMED = 3  # masks that hold a value


@dataclass
class Look:
    """What was seen.

    Attributes:
        values: mask values without 0; 255 where it means that a pixel is not annotated.
        channels: 1 or 3.
        mixed: whether some pictures are grey and some have colours.
        modality: "CT" where the intensities or DICOM say so, other words of DICOM, "" elsewhere.
        window: intensities around the structures, of CT.
        size: pixels along a side that keep the structures' shapes.
        kept: worst mean Dice of a structure at that size.
        one_piece: structures that are one piece in every volume.
        read: how many cases were read.
        holders: mask value -> the masks that hold it.
    """

    values: list[int]
    channels: int = 1
    mixed: bool = False
    modality: str = ""
    window: tuple[int, int] | None = None
    size: int = SIZES[0]
    kept: float = 1.0
    one_piece: tuple[int, ...] = ()
    read: int = 0
    holders: Mapping[int, Sequence[Path]] = field(default_factory=dict)

    @property
    def structures(self) -> int:
        """How many classes beside the background."""
        drawn = [value for value in self.values if value != 255] or [1]
        return 1 if len(self.values) == 1 else max(drawn)

    def rare(self, value: int) -> bool:
        """Whether at most a quarter of the masks hold a value: it may be a stray one."""
        return 0 < 4 * len(self.holders.get(value, ())) <= self.read

    def holding(self, value: int) -> str:
        """Name the masks that hold a value, as in "only masks/7.png holds 4"; where many do, say how many."""
        files = [str(path) for path in self.holders[value]]
        if len(files) > NAMED and not self.rare(value):
            return f"{len(files)} of {self.read} masks hold {value}"
        shown, more = files[:NAMED], len(files) - NAMED
        shown += [f"{more} other{'s' * (more > 1)}"] if more > 0 else []
        listed = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
        return f"only {listed} hold{'s' * (len(files) == 1)} {value}"


def look(tree: Tree) -> Look:
    """Read the cases of a tree, of many a part that is spread evenly.

    Raises:
        TskdError: a list of the files that cannot be used, or of what their masks hold that are no class indices.
    """
    labelled = [case for case in tree.cases if case.mask]
    chosen = labelled[:: -(-len(labelled) // READ[tree.volumes])]
    problems: list[str] = []
    masks, seen = [], []
    for case in chosen:
        assert case.mask
        try:
            masks.append(_mask(case.mask.path))
            seen.append(case)
        except TskdError as error:
            problems.append(str(error))
    holders: dict[int, list[Path]] = {}
    for case, mask in zip(seen, masks, strict=True):
        for value in distinct(mask):
            holders.setdefault(int(value), []).extend([case.mask.path] if case.mask else [])
    values = sorted(holders.keys() - {0})
    if not problems:
        problems += _odd_values(values, seen, masks)
    kinds: set[int] = set()
    if not tree.volumes:
        kinds, wrong = _channels(tree.cases[:: -(-len(tree.cases) // READ[False])])
        problems += wrong
    _refuse(problems)
    measured = Look(values, 3 if 3 in kinds else 1, len(kinds) > 1, read=len(seen), holders=holders)
    measured.size, measured.kept = _size(masks, measured)
    if tree.volumes:
        measured.one_piece = _one_piece(masks, measured)
        _intensities(seen, masks, measured)
    return measured


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] * (len(problems) > SHOWN)
        raise TskdError(
            "\n  - ".join([f"{len(problems)} problem{'s' * (len(problems) > 1)}", *problems[:SHOWN], *more])
        )


def _mask(path: Path) -> NDArray:
    """Return a mask's values [rows, columns] or [x, y, z]."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        array = np.asanyarray(read_nifti(path).dataobj)
        array = (
            array.reshape(array.shape[:3]) if array.ndim > 3 and array.shape[3:] == (1,) * (array.ndim - 3) else array
        )
        if array.ndim != 3 or array.dtype.kind not in "iufb":
            raise TskdError(
                f"{path}: expected a volume of class indices with 3 dimensions, found {array.dtype} of shape "
                f"{array.shape}. Write one number a voxel: 1, 2, ... for the structures."
            )
        return as_label(array, path)
    return stored_mask(path).values


def _odd_values(values: Sequence[int], cases: Sequence[Case], masks: Sequence[NDArray]) -> list[str]:
    """Refuse what is no set of class indices."""
    indices = [value for value in values if value != 255]
    if not values:
        return ["masks: expected a structure in at least one, found 0 everywhere"]
    if len(values) == 1 or (indices and min(indices) > 0 and max(indices) <= 2 * len(indices) + 2):
        return []
    largest = [max((value for value in distinct(mask) if value != 255), default=0) for mask in masks]
    worst = max(range(len(masks)), key=lambda number: (len(distinct(masks[number])) > 40, largest[number]))
    mask = cases[worst].mask
    shown = ", ".join(map(str, distinct(masks[worst])[:8]))
    remedy = "JPEG stores grey values that nobody drew: save the masks as PNG." if (
        mask and mask.path.suffix.lower() in (".jpg", ".jpeg")
    ) else "Write 1, 2, ... for the structures."  # fmt: skip
    return [f"{mask.path if mask else 'masks'}: expected class indices, found {shown}, ... {remedy}"]


def _channels(cases: Iterable[Case]) -> tuple[set[int], list[str]]:
    kinds, problems = set(), []
    for case in cases:
        try:
            kinds.add(colour_channels(case.image.path))
        except TskdError as error:
            problems.append(str(error))
    return kinds, problems


def _size(masks: Sequence[NDArray], measured: Look) -> tuple[int, float]:
    """Return the smallest size at which masks keep their shape, and the worst structure's mean Dice there."""
    slices = [each for mask in masks for each in _largest_slices(mask)][:: max(len(masks) // 40, 1)]
    binary = len(measured.values) == 1
    for size in SIZES:
        scores = {value: [_kept(each == value, size) for each in slices if (each == value).any()]
                  for value in (measured.values if binary else [v for v in measured.values if v != 255])}  # fmt: skip
        worst = min((float(np.mean(each)) for each in scores.values() if each), default=1.0)
        if worst >= KEPT:
            return size, worst
    return size, worst


def _largest_slices(mask: NDArray) -> list[NDArray]:
    """Return the mask of a picture; of a volume, for each structure the slice that shows most of it."""
    if mask.ndim == 2:
        return [mask]
    values = [value for value in distinct(mask) if value not in (0, 255)] or [255]
    return [mask[..., int(np.argmax((mask == value).sum(axis=(0, 1))))] for value in values]


def _kept(mask: NDArray, size: int) -> float:
    """Dice of a mask with itself after it was made `size` x `size` and large again."""
    picture = Image.fromarray(mask.astype(np.float32) * 255)
    small = picture.resize((size, size), Image.Resampling.BOX if max(mask.shape) > size else Image.Resampling.BILINEAR)
    restored = np.asarray(small.resize(picture.size, Image.Resampling.BILINEAR)) > 127.5
    return 2 * float((restored & mask).sum()) / float(restored.sum() + mask.sum())


def _one_piece(masks: Sequence[NDArray], measured: Look) -> tuple[int, ...]:
    """Structures that are one connected part in every volume that shows them."""
    result = []
    for value in measured.values:
        shares = []
        for mask in masks:
            parts, count = ndimage.label(mask == value, np.ones((3, 3, 3)))
            if count:
                sizes = np.bincount(parts.ravel())[1:]
                shares.append(sizes.max() / sizes.sum())
        if shares and min(shares) >= ONE_PIECE and (value != 255 or len(measured.values) == 1):
            result.append(1 if len(measured.values) == 1 else value)
    return tuple(result)


def _intensities(cases: Sequence[Case], masks: Sequence[NDArray], measured: Look) -> None:
    """Whether this is CT, and the window around its structures."""
    modalities = {case.image.modality for case in cases if case.image.modality}
    measured.modality = {"MR": "MR", "CT": "CT"}.get(modalities.pop(), "") if len(modalities) == 1 else ""
    inside, hounsfield = [], 0
    few = [*zip(cases, masks, strict=True)][:: max(len(cases) // 10, 1)]
    for case, mask in few:
        _refuse_channels(case)
        volume = load_volume(case.image.path)[0]
        hounsfield += bool(np.percentile(volume[::4, ::4, ::2], 2) < HOUNSFIELD)
        if volume.shape == mask.shape:
            inside.append(volume[(mask > 0) & (mask != 255 if len(measured.values) > 1 else True)][::7])
    if not measured.modality and hounsfield * 2 > len(few):
        measured.modality = "CT"
    values = np.concatenate(inside) if inside else np.zeros(0)
    if values.size:
        low, high = np.percentile(values, [0.5, 99.5])
        margin = max((350 - (high - low)) / 2, 0.1 * (high - low))  # no narrower than a soft tissue window
        measured.window = (int(10 * np.floor((low - margin) / 10)), int(10 * np.ceil((high + margin) / 10)))


def _refuse_channels(case: Case) -> None:
    if case.image.kind in VOLUMES and case.image.kind != "series":
        shape = nib.load(case.image.path).shape  # type: ignore[attr-defined]
        if len(shape) > 3 and shape[3] > 1:
            raise TskdError(
                f"{case.image.path}: expected one channel a volume, found {shape[3]} in one file. Write the channel "
                "that shows the structures best into a file of its own for each patient: a student takes one."
            )
