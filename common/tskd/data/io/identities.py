"""Who a DICOM file is of: the words that must not be written anywhere, and the codes that stand for them.

A code is a keyed hash (HMAC-SHA-256). A plain hash of a PatientID is undone by trying all ids; the key is random, and
lies with the user, never in a data set.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tskd.errors import TskdError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

VARIABLE = "TSKD_KEY_FILE"  # environment: file of the key, for codes that several machines share
TAGS = (
    *("PatientID", "PatientName", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "StudyID"),
    *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyInstanceUID", "SeriesInstanceUID"),
)
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS)
# three parts of a date from each place on: numbers with marks between, numbers and a name, digits alone
_MARKED = re.compile(r"(?<![0-9])(?=([0-9]{1,4})([-._/ ])([0-9]{1,2})\2([0-9]{1,4})(?![0-9]))")
_NAMED = re.compile(
    rf"(?:(?<![0-9])(?=[0-9])|(?<![a-z])(?=[a-z]))"
    rf"(?=([0-9]{{1,4}}|{_MONTH})([-._/ ]?)([0-9]{{1,2}}|{_MONTH})(?:\2|, )([0-9]{{1,4}})(?![0-9]))"
)
_DIGITS = tuple(re.compile(rf"(?=({first})()({second})({third}))") for first, second, third in (
    ("[0-9]{4}", "[0-9]{2}", "[0-9]{2}"), ("[0-9]{2}", "[0-9]{2}", "[0-9]{4}"), ("[0-9]{2}", "[0-9]{2}", "[0-9]{2}"),
))  # fmt: skip
_DATE = re.compile(r"(18|19|20|21)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_SHORT = 4  # characters: shorter words are in too many names by chance, and count where they stand alone


def identity_words(header: Dataset) -> tuple[str, ...]:
    """Return names, ids, dates and UIDs of a DICOM header, the longest first; none where its identity is removed."""
    if str(header.get("PatientIdentityRemoved") or "").strip().upper() == "YES":
        return ()
    words: set[str] = set()
    for tag in TAGS:
        text = str(header.get(tag) or "").strip()
        words |= {text, *re.split(r"[\^=\s,\\]+", text)}
    kept = {word for word in words if len(word) >= _SHORT or (len(word) > 1 and not word.isdigit())}
    kept |= {str(header.get("PatientID") or "").strip()} - {""}  # whole, however short: folders are called by it
    return tuple(sorted(kept, key=lambda word: (-len(word), word)))


def code_of(text: str) -> str:
    """Return eight digits that stand for a text on this machine, and with the same key file on others.

    Raises:
        TskdError: the key can neither be read nor written.
    """
    return hmac.new(_key(), text.encode(), hashlib.sha256).hexdigest()[:8]


def without_identity(text: str, words: Iterable[str]) -> str:
    """Return a text with the code in place of each of the words, in whatever case and with whatever accents.

    A word that is a date, YYYYMMDD, is found with year, day or month first, the year with two or four digits, the month
    as a number or an English name, and -, ., _, / or a space between. Its code is that of YYYYMMDD.
    """
    known, pattern, dates = _finder(tuple(words))
    positions = [index for index, letter in enumerate(text) for _ in _folded(letter)]  # in the text
    folded = "".join(map(_folded, text))
    matches = _dated(folded, dates) if dates else []
    if known:
        matches += [(match.start(), match.end(), match[0]) for match in pattern.finditer(folded)]
    parts, end = [], 0
    for first, last, word in sorted(matches, key=lambda match: (match[0], -match[1])):
        start = positions[first]
        if start < end:  # within one that began before, or is longer
            continue
        before, end = end, positions[last - 1] + 1
        while end < len(text) and not _folded(text[end]):  # accents that are letters of their own
            end += 1
        plain = _most_alike(text[start:end], known[word]) if word in known else word
        parts += [text[before:start], code_of(plain)]
    return "".join([*parts, text[end:]])


@lru_cache(maxsize=4)
def _finder(words: tuple[str, ...]) -> tuple[dict[str, list[str]], re.Pattern[str], frozenset[str]]:
    """Return the words by how they are looked for, the pattern of all but the dates, and the dates."""
    known: dict[str, list[str]] = {}
    for word in words:
        if not _DATE.fullmatch(word) and (folded := "".join(map(_folded, word))):
            known.setdefault(folded, []).append(word)
    pattern = "|".join(map(_pattern, sorted(known, key=len, reverse=True)))
    return known, re.compile(pattern), frozenset(word for word in words if _DATE.fullmatch(word))


def _dated(text: str, dates: Container[str]) -> list[tuple[int, int, str]]:
    """Return where a text has one of the dates, YYYYMMDD, in whatever spelling: start, end and the date."""
    matches = []
    for pattern in (_MARKED, _NAMED, *_DIGITS):
        for match in pattern.finditer(text):
            first, mark, second, third = match.groups()
            start, end = match.start(), match.end(4)
            short = mark == "." and max(len(first), len(third)) == 2  # may be a part of a UID or version
            if short and (re.search(r"[0-9]\.$", text[:start]) or re.match(r"\.[0-9]", text[end:])):
                continue
            matches += [(start, end, date) for date in _read_as_dates(first, second, third) if date in dates]
    return matches


def _read_as_dates(first: str, second: str, third: str) -> Iterator[str]:
    """Yield the dates YYYYMMDD that three parts may be, the year first or last; of two digits it is of any century."""
    for year, month, day in ((first, second, third), (third, second, first), (third, first, second)):
        if len(year) not in (2, 4) or not (year + day).isdigit() or len(day) > 2:
            continue
        named = [number for number, name in enumerate(_MONTHS, 1) if name.startswith(month) and month.isalpha()]
        number = f"{named[0]:02}" if named else month.zfill(2)
        for century in ("",) if len(year) == 4 else ("18", "19", "20", "21"):
            yield f"{century}{year}{number}{day.zfill(2)}"


def _most_alike(part: str, words: Sequence[str]) -> str:
    """Return the word that a part of a text is but for its case, of several that differ in accents; else the first."""

    def spelled(text: str) -> str:
        return unicodedata.normalize("NFC", text.casefold())

    return next((word for word in words if spelled(word) == spelled(part)), words[0])


def _folded(letter: str) -> str:
    """Return a letter without case and accents: none, one, or several letters as of a sharp s."""
    return "".join(part for part in unicodedata.normalize("NFD", letter.casefold()) if not unicodedata.combining(part))


def _pattern(word: str) -> str:
    """Return the regular expression of a word, which has to stand alone where it is in too many names by chance."""
    short = len(word) < _SHORT and not any(letter >= "\u2e80" for letter in word)  # two ideographs are a name
    return rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" if short else re.escape(word)


@cache
def _key() -> bytes:
    from platformdirs import user_config_path  # here: a shipped bundle has this file, not the package, and asks no code

    path = Path(os.environ.get(VARIABLE) or user_config_path("tskd", appauthor=False) / "key").expanduser()
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_key(path)
        key = path.read_text(encoding="utf-8").strip().encode()
    except (OSError, ValueError) as error:
        raise TskdError(
            f"{path}: expected the key for codes of patients, found none and could not make it ({error}). Name a file "
            f"for it with the environment variable {VARIABLE}."
        ) from error
    if len(key) < 16:
        raise TskdError(f"{path}: expected a key of 16 characters or more, found {len(key)}. Remove the file.")
    return key


def _make_key(path: Path) -> None:
    """Write a key that only the user reads; of several processes that do so at once, all then read the first one's."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(secrets.token_hex(32) + "\n")
    try:
        os.link(draft, path)  # unlike a rename it fails where there is one
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
