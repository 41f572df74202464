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
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
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
_MARKS = "-._/"
_SHORT_DATE = re.compile(rf"\d\d?([{_MARKS}])\d\d?\1\d\d?")
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
    dates = {date for word in words if _DATE.fullmatch(word) for date in _date_spellings(word)}
    kept = {word for word in words | dates if len(word) >= _SHORT or (len(word) > 1 and not word.isdigit())}
    kept |= {str(header.get("PatientID") or "").strip()} - {""}  # whole, however short: folders are called by it
    return tuple(sorted(kept, key=lambda word: (-len(word), word)))


def _date_spellings(date: str) -> set[str]:
    """Return spellings of a date YYYYMMDD: year, day or month first, with and without century, marks, leading zeros."""
    spellings = set()
    for year, month, day in product(
        (date[:4], date[2:4]),  # of 2005 "05": a year keeps its zero
        {date[4:6], date[4:6].lstrip("0")},
        {date[6:], date[6:].lstrip("0")},
    ):
        marks = _MARKS if 1 in (len(month), len(day)) else ("", *_MARKS)
        orders = ((year, month, day), (day, month, year), (month, day, year))
        spellings |= {mark.join(order) for order in orders for mark in marks}
    return spellings


def code_of(text: str) -> str:
    """Return eight digits that stand for a text on this machine, and with the same key file on others.

    Raises:
        TskdError: the key can neither be read nor written.
    """
    return hmac.new(_key(), text.encode(), hashlib.sha256).hexdigest()[:8]


def without_identity(text: str, words: Iterable[str]) -> str:
    """Return a text with the code in place of each of the words, in whatever case and with whatever accents."""
    known: dict[str, list[str]] = {}
    for word in words:
        if folded := "".join(map(_folded, word)):
            known.setdefault(folded, []).append(word)
    if not known:
        return text
    longest_first = sorted(known, key=len, reverse=True)
    pattern = "|".join(map(_pattern, longest_first))
    positions = [index for index, letter in enumerate(text) for _ in _folded(letter)]  # in the text
    parts, end = [], 0
    for match in re.finditer(pattern, "".join(map(_folded, text))):
        start, before, end = positions[match.start()], end, positions[match.end() - 1] + 1
        while end < len(text) and not _folded(text[end]):  # accents that are letters of their own
            end += 1
        parts += [text[before:start], code_of(_most_alike(text[start:end], known[match[0]]))]
    return "".join([*parts, text[end:]])


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
    if short_date := _SHORT_DATE.fullmatch(word):  # no part of a longer number, nor of a UID or version
        before, after = (r"(?<!\d\.)", r"\.?") if short_date[1] == "." else ("", "")
        return rf"(?<!\d){before}{re.escape(word)}(?!{after}\d)"
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
