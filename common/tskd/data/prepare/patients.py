"""Who the patient is: from a pattern, a table or DICOM, and a word where each file counts as one."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tskd.errors import TskdError

_WORDS = (
    r"frame|time|tp|visit|ses|session|scan|pre|post|baseline|base|followup|follow-up|fu|left|right|od|os|ed|es|"
    r"systole|diastole|before|after|t|v|day|week|month|year|phase|arterial|venous|portal|delayed|t1w?|t2w?|t1ce|flair|"
    r"adc|dwi|crop|slice|img|view|rep"
)
_LAST = re.compile(rf"^(?P<who>.*[^\W_])[-_. ]+(?:{_WORDS})[-_]?\d*$", re.IGNORECASE)
_FIRST = re.compile(rf"^(?:{_WORDS})[-_]?\d*[-_. ]+(?P<who>.*\d.*)$", re.IGNORECASE)
_NUMBER = re.compile(r"^(?P<who>.*[^\W_])[-_. ]+\d{1,3}$")
_LETTER = re.compile(r"^(?P<who>.*\d)[a-dA-D]$")


def group_in_name(name: str, pattern: str, where: str | Path) -> str:
    """Return the patient that a regular expression finds in a file's name: its first group, or all that it matches.

    Raises:
        TskdError: no regular expression, or a name without a patient.
    """
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise TskdError(f"--group-pattern {pattern!r}: expected a regular expression, found {error}.") from error
    group = match and (match[1] if match.re.groups else match[0])
    if not group:
        raise TskdError(
            f"{where}: expected a patient in the name by the pattern {pattern!r}, found none. Correct the "
            "pattern (quote it in the shell), or leave it out if each image is of another patient."
        )
    return group


def several_of_one(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names that look like several scans of one patient, by what they share: `p1_frame01` and `p1_frame12`, say.

    Spellings of one code count as it: `Pat01_T1` and `pat1-T2`. A number alone (`case_1`, `case_2`) tells nothing where
    all names, or many of a stem, have one.
    """
    names = sorted(set(names))
    similar: dict[str, list[str]] = {}
    for pattern in (_LAST, _FIRST, _NUMBER, _LETTER):
        stems: dict[str, list[str]] = defaultdict(list)
        first: dict[str, str] = {}
        for name in names:
            if match := pattern.match(name):
                stems[first.setdefault(same_spelling(match["who"]), match["who"])].append(name)
        shared = {who: of for who, of in stems.items() if len(of) > 1}
        if pattern is _NUMBER and len(stems) < max(2, len(names) / 12):
            continue
        similar = {**shared, **similar}
    return similar


def warn_of_several(groups: Mapping[str, str], how: str = "--group-pattern, or the column group of --table") -> bool:
    """Warn where cases of different patients have names that look like several scans of one.

    Args:
        groups: case -> patient.
        how: what to do about it.

    Returns:
        Whether there are any.
    """
    apart = {who: names for who, names in several_of_one(groups).items() if len({groups[name] for name in names}) > 1}
    if apart:
        shown = "; ".join(", ".join(names[:3]) for names in list(apart.values())[:3])
        logging.getLogger(__name__).warning(
            "names look like several scans of one patient, which count as patients of their own: %s. A patient in "
            "training and test makes every measured number too good: say who the patient is (%s).",
            shown,
            how,
        )
    return bool(apart)


def same_spelling(code: str) -> str:
    """Return what the spellings of a patient's code have in common: `P 03`, `p-03`, `P_3` and `p3` are one.

    Case, blanks and leading zeros do not count, nor does what stands between a letter and a digit; between digits it
    does, as `1-12` and `11 2` are two.
    """
    plain = re.sub(r"(?<=\d)\s+(?=\d)", "-", code.casefold())
    plain = re.sub(r"(?<=[^\W\d_])[-_.]+(?=\d)", "", re.sub(r"\s+", "", plain))
    return re.sub(r"(?<!\d)(?<!\d\.)0+(?=\d)", "", plain)


def refuse_alike(groups: Iterable[str]) -> None:
    """Refuse patients whose codes are spellings of one, as `same_spelling` says.

    Raises:
        TskdError: naming them.
    """
    first: dict[str, str] = {}
    for group in sorted(set(groups)):
        spelling = first.setdefault(same_spelling(group), group)
        if spelling != group:
            raise TskdError(
                f"patients: expected one spelling for each, found {spelling!r} and {group!r}. Write them alike if they "
                "are one patient, or rename one."
            )
