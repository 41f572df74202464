"""Order the slices of each volume by the number that `tskd prepare` gives them: case `<scan>_<slice number>`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from tskd.errors import TskdError

Entry = TypeVar("Entry", bound=Mapping[str, object])

_NUMBERED = re.compile(r"(.*)_(\d+)")


def slices_by_volume(entries: Sequence[Entry], where: object, what: str) -> dict[tuple[str, str], dict[int, Entry]]:
    """Return the slices of each volume by their number, ascending; volumes in the order in which they first appear.

    Args:
        entries: datalist entries with `group` and `case`.
        where: file or key to name in errors.
        what: what needs the volumes, to name in errors.

    Returns:
        (patient, scan) -> slice number -> entry.

    Raises:
        TskdError: cases without a slice number, volumes of a single slice (a data set of independent images), or with
            slices missing between others.
    """
    volumes: dict[tuple[str, str], dict[int, Entry]] = {}
    problems = []
    for entry in entries:
        match = _NUMBERED.fullmatch(str(entry["case"]))
        if match is None:
            problems.append(f"case {entry['case']!r} has no slice number")
            continue
        slices = volumes.setdefault((str(entry["group"]), match[1]), {})
        if int(match[2]) in slices:
            problems.append(f"{match[1]!r} has two slices {int(match[2])}")
        slices[int(match[2])] = entry
    for (_, scan), slices in volumes.items():
        missing = sorted(set(range(min(slices), max(slices) + 1)) - slices.keys())
        if len(slices) == 1:
            problems.append(f"{scan!r} has one slice only, {min(slices)}")
        elif missing:
            problems.append(f"{scan!r} has slices {min(slices)} to {max(slices)} without {missing[0]}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise TskdError(
            f"{where}: expected the slices of whole volumes, as {what} needs them, in cases named <scan>_<slice "
            f"number>, found that {'; '.join(problems[:3])}{more}. Slices may be missing because a number of slices is "
            "labelled (label whole patients: whole_patients.json) or because they are of one grey, which `tskd "
            "prepare` leaves out. Independent images have no neighbours: train on them without."
        )
    return {volume: dict(sorted(slices.items())) for volume, slices in volumes.items()}
