"""Who the patient is: from a pattern, a table or DICOM, and a word where each file counts as one."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tskd.errors import TskdError

_WORDS = (
    r"frame|time|tp|visit|ses|session|scan|pre|post|baseline|base|followup|follow-up|fu|left|right|od|os|ed|es|"
    r"systole|diastole|before|after|t|v|day|week|month|year|phase|arterial|venous|portal|delayed|t1w?|t2w?|t1ce|flair|"
    r"adc|dwi|crop|slice|img|view|rep"
)
_LAST = re.compile(rf"^(?P<who>.*[^\W_])[-_. ]+(?:{_WORDS})[-_]?\d*$", re.IGNORECASE)
_FIRST = re.compile(rf"^(?:{_WORDS})[-_]?\d*[-_. ]+(?P<who>.*\d.*)$", re.IGNORECASE)
_NUMBER = re.compile(r"^(?P<who>.*[^\W_])[-_. ]+(?P<number>\d{1,4})$")
_LETTER = re.compile(r"^(?P<who>.*\d)[a-dA-D]$")
_EYE = re.compile(r"^(?P<who>.*\d)[-_ ]?[LR]$")
# slice12_3: which number is the patient's is not said; slice12, T2: no patient
_TWO_NUMBERS = re.compile(r"^(?:slice|img|crop)[-_]?\d+[-_. ]+\d+$", re.IGNORECASE)
_SCAN = re.compile(rf"^(?:{_WORDS})[-_]?\d*$", re.IGNORECASE)
_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = re.compile(
    rf"(?<!\d)(?:{_YEAR}(?P<sign>[-_.]?){_MONTH}(?P=sign){_DAY}|\d\d(?P<mark>[-_.])\d\d(?P=mark){_YEAR})(?!\d)"
)
_NO_CODE = re.compile(rf"(?<!\d){_YEAR}(?:[-_.]{_MONTH})?(?!\d)")  # isic2017, 2021-03
_PATIENT = ("patient", "subject", "subj", "case", "person", "participant", "volunteer", "animal", "mouse")
_FEW = 12  # numbered names of a stem without a code, such as `benign`, that may still be one patient's


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

    Spellings of one code count as it: `Pat01_T1` and `pat1-T2`; so does the code alone (`p1` beside `p1_visit2`). What
    stands before a number (`p01_000`) is a patient where it holds a digit that is no date, year or word for a scan. A
    number alone (`case_1`, `case_2`) tells nothing where all names, or many of a stem, have one.

    Returns:
        Code -> sorted names, at least two. A name may stand under several codes, of which the first is the surest.
    """
    names = sorted(set(names))
    numbered = _numbered(names)
    groups: dict[str, set[str]] = defaultdict(set)
    spelled: dict[str, str] = {}
    for pattern in (_EYE, _LAST, _FIRST, _NUMBER, _LETTER):
        for name in names:
            code = numbered.get(name) if pattern is _NUMBER else _code(name, pattern)
            if code:
                groups[same_spelling(code)].add(name)
                spelled.setdefault(same_spelling(code), code)
    for name in names:
        if re.search(r"\d", name) and same_spelling(name) in groups:
            groups[same_spelling(name)].add(name)
    several: dict[str, list[str]] = {}
    surer: dict[str, list[set[str]]] = defaultdict(list)
    for who, members in groups.items():
        if len(members) > 1 and not any(members <= group for group in surer[min(members)]):
            several[spelled[who]] = sorted(members)
            for name in members:
                surer[name].append(members)
    return several


def has_code(text: str) -> bool:
    """Return whether a text holds a digit that is none of a year: `p01` and `07` do, `case` and `isic2017` do not."""
    return bool(re.search(r"\d", _NO_CODE.sub("", text)))


def _is_code(stem: str) -> bool:
    """Return whether what stands before a number is a patient's code: `p01`, `sub-01`, `07`; not `kits19`, `site1`."""
    last = re.split(r"[-_. ]+", stem)[-1]
    word = re.match(r"[^\W\d_]*", last)
    return has_code(last) and (word is None or len(word[0]) < 4 or word[0].lower() in _PATIENT)


def _code(name: str, pattern: re.Pattern[str]) -> str:
    """Return what a name has beside an eye, a word for a scan or a letter, "" where it has none of these."""
    if _TWO_NUMBERS.match(name):
        return ""
    texts = [name]
    if pattern is _EYE:  # 07 of 07_L_visit2, too
        texts += [match["who"] for word in (_LAST, _FIRST) if (match := word.match(name))]
    match = next(filter(None, map(pattern.match, texts)), None)
    date = _DATE.search(name)
    if match and date and date.start() < match.start("who") < date.end():  # scan_01.02.2021
        return ""
    return match["who"] if match else ""


def _numbered(names: Sequence[str]) -> dict[str, str]:
    """Return name -> what stands before its number, where that may be a patient."""
    coded: dict[str, dict[str, str]] = defaultdict(dict)
    plain: dict[str, dict[str, str]] = defaultdict(dict)
    numbers = [(match["who"], int(match["number"])) for match in map(_NUMBER.match, names) if match]
    counted = {who for who, number in numbers if number <= 1}  # from 0 or 1 on, as images are: not TCGA-02-0003
    for name in names:
        match, date = _NUMBER.match(name), _DATE.search(name)
        if not match or _TWO_NUMBERS.match(name) or _SCAN.match(match["who"]):
            continue
        if date and not has_code(name[: date.start()]):
            continue
        if _is_code(match["who"]) and (len(match["number"]) < 4 or match["who"] in counted):
            coded[same_spelling(match["who"])][name] = match["who"]
        elif len(match["number"]) < 4:
            plain[same_spelling(match["who"])][name] = match["who"]
    shared = [stem for stem in coded.values() if len(stem) > 1]
    if len(shared) == 1 and len(shared[0]) > min(_FEW, len(names) / 2):  # the data set's name: covid19_001
        coded.clear()
    if len(plain) < max(2, (len(names) - sum(map(len, coded.values()))) / _FEW):
        plain.clear()
    return {name: who for stem in (*coded.values(), *plain.values()) for name, who in stem.items()}


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
