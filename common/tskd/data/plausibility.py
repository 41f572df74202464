"""Whether images and labels hold what was said of them: structures, intensity window, unit of intensity.

None of these is certainly wrong, so they are warnings; preparation, `tskd check` and a training give the same ones.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tskd.data.budget import Budget, groups_of
from tskd.data.io.image_files import distinct

CUT = 0.5  # share of a structure's pixels at the ends of the grey scale from which on it counts as cut off
_TIMES = 10.0  # by which a range of intensities may differ from the others'

EMPTY_MASKS = "masks: expected a structure in at least one, found the background alone. Are these the right files?"


@dataclass
class Shown:
    """What labels show, gathered entry by entry.

    Args:
        entries: (list, class) -> number of entries (slices, images or volumes) that show it.
        groups: (list, class) -> patients that show it.
        labels: list -> number of its labels.
        order: of each entry of `training`, its patient and the classes that it shows.
        cut: (patient, class) -> pixels at the black end, at the white end, and all of the class.
    """

    entries: Counter[tuple[str, int]] = field(default_factory=Counter)
    groups: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    labels: Counter[str] = field(default_factory=Counter)
    order: list[tuple[str, set[int]]] = field(default_factory=list)
    cut: dict[tuple[str, int], np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(3)))

    def add(self, section: str, group: str, label: np.ndarray, scaled: np.ndarray | None = None) -> None:
        """Take one label, and its image scaled to [0, 1] of the same shape, if it has one channel."""
        classes = {int(value) for value in distinct(label)} - {0, 255}
        self.labels[section] += 1
        if section == "training":
            self.order.append((group, classes))
        for value in classes:
            self.entries[section, value] += 1
            self.groups[section, value].add(group)
            if scaled is not None:
                inside = scaled[label == value]
                self.cut[group, value] += ((inside <= 0).sum(), (inside >= 1).sum(), inside.size)


def structure_warnings(shown: Shown, labels: Mapping[str, str], num_labelled: Budget = None) -> list[str]:
    """Return a line for each structure that no training label shows, none within the budget, or no other list."""
    lines = []
    within_budget = _within(shown.order, num_labelled)
    lists = sorted({section for section, _ in shown.entries})
    for key, name in labels.items():
        value = int(key)
        if value == 0 or not shown.order or num_labelled == 0:  # a distillation needs no labels
            continue
        if any(value in classes for classes in within_budget):
            absent = [part for part in ("validation", "test") if shown.labels[part] and not shown.entries[part, value]]
            if absent and num_labelled is None:  # not again at each training
                lines.append(
                    f"{name} (mask value {value}): in no label of the {' and the '.join(absent)} list, so nothing is "
                    "measured of it there."
                )
            continue
        counts = ", ".join(
            f"{section} {shown.entries[section, value]} ({_patients(len(shown.groups[section, value]))})"
            for section in lists
        )
        if num_labelled is None or not shown.entries["training", value]:
            what = "in no label of the training list, so it cannot be learnt"
        else:
            what = f"in none of the first {num_labelled} training labels (num_labelled), so it cannot be learnt"
            if groups_of(num_labelled):
                what = f"in no label of the first {num_labelled} (num_labelled_groups), so it cannot be learnt"
        lines.append(f"{name} (mask value {value}): {what}. Labels that show it: {counts or 'none'}.")
    return lines


def _within(order: list[tuple[str, set[int]]], num_labelled: Budget) -> list[set[int]]:
    """Return the classes of each training label within the budget, which may be larger than the list."""
    if (wanted := groups_of(num_labelled)) is not None:
        patients = list(dict.fromkeys(group for group, _ in order))[:wanted]
        return [classes for group, classes in order if group in patients]
    return [classes for _, classes in order[:num_labelled]]  # type: ignore[index]  # no text here


def cut_warnings(shown: Shown, labels: Mapping[str, str], scaling: str) -> list[str]:
    """Return a line for each structure of which most pixels are at an end of the grey scale, with the patients."""
    cut: dict[tuple[int, str], list[str]] = defaultdict(list)
    for (group, value), (black, white, size) in sorted(shown.cut.items()):
        for share, end in ((black / size, "black"), (white / size, "white")):
            if share >= CUT:
                cut[value, end].append(f"{group} {share:.0%}")
    return [
        f"{labels.get(str(value), value)}: expected intensities inside the scaling ({scaling}), found pixels at its "
        f"{end} end in {len(patients)} patients ({', '.join(patients[:5])}). Is the window right, and are the "
        "intensities of these patients in the same unit as the others'?"
        for (value, end), patients in cut.items()
    ]


def intensity_range(array: np.ndarray) -> tuple[float, float]:
    """Return the 1st and 99th percentile of an image or volume, from at most about 100,000 of its values."""
    values = array.ravel(order="K")[:: -(-array.size // 100_000) or 1]
    if not values.size:
        return 0.0, 0.0
    if values.dtype != np.uint8:
        low, high = np.percentile(values, [1, 99])
        return float(low), float(high)
    below = np.bincount(values, minlength=256).cumsum()  # counting 256 values is faster than ordering all pixels
    ranks = np.array([0.01, 0.99]) * (values.size - 1)
    floor, ceiling = (np.searchsorted(below, np.floor(ranks) + up, side="right") for up in (0, 1))
    low, high = floor + (np.minimum(ceiling, 255) - floor) * (ranks % 1)
    return float(low), float(high)


def unit_warnings(ranges: Mapping[str, tuple[float, float]], offsets: bool = True) -> list[str]:
    """Return a line where some images' intensities have another scale or offset than most, as of another unit.

    Args:
        ranges: case or patient -> `intensity_range`.
        offsets: whether a range that is moved counts, too (volumes; of pictures a brighter one is no other unit).
    """
    widths = {code: high - low for code, (low, high) in ranges.items() if high > low}
    if len(widths) < 3:
        return []
    usual = float(np.median([*widths.values()]))
    odd = {code: width for code, width in widths.items() if not 1 / _TIMES <= width / usual <= _TIMES}
    moved = _moved({code: ranges[code] for code in widths if code not in odd}, usual) if offsets else []
    if not odd and not moved:
        return []
    shown = [f"{code} ({ranges[code][0]:.4g} to {ranges[code][1]:.4g})" for code in [*odd, *moved][:5]]
    rest = [ranges[code] for code in widths if code not in odd and code not in moved]
    low, high = np.median(rest, axis=0) if rest else (float("nan"),) * 2
    return [
        f"intensities: expected one unit in all images (most go from about {low:.4g} to {high:.4g}), found "
        f"{len(odd) + len(moved)} that differ: {', '.join(shown)}. Scaled otherwise, or another kind of image?"
    ]


def _moved(ranges: Mapping[str, tuple[float, float]], usual: float) -> list[str]:
    """Those whose range is the usual one moved by an offset."""
    if len(ranges) < 3:
        return []
    low, high = np.median([*ranges.values()], axis=0)
    return [
        code
        for code, (start, end) in ranges.items()
        if (start - low) * (end - high) > 0 and min(abs(start - low), abs(end - high)) > usual / 3
    ]


def _patients(number: int) -> str:
    return f"{number} patient{'s' * (number != 1)}"


def warn(lines: Iterable[str]) -> None:
    """Log each line as a warning."""
    for line in lines:
        logging.getLogger(__name__).warning("%s", line)
