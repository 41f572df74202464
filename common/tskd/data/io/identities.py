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
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tskd.errors import TskdError
from tskd.files import write_text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

VARIABLE = "TSKD_KEY_FILE"  # environment: file of the key, for codes that several machines share
TAGS = (
    *("PatientID", "PatientName", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "StudyID"),
    *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyInstanceUID", "SeriesInstanceUID"),
)
_SHORT = 4  # characters: shorter words are in too many names by chance, and count where they stand alone


def identity_words(header: Dataset) -> tuple[str, ...]:
    """Return names, ids, dates and UIDs of a DICOM header, the longest first; none where its identity is removed."""
    if str(header.get("PatientIdentityRemoved") or "").strip().upper() == "YES":
        return ()
    words: set[str] = set()
    for tag in TAGS:
        text = str(header.get(tag) or "").strip()
        words |= {text, *re.split(r"[\^=\s,\\]+", text)}
    dates = {f"{w[:4]}{mark}{w[4:6]}{mark}{w[6:]}" for w in words if re.fullmatch(r"\d{8}", w) for mark in "-._"}
    kept = {word for word in words | dates if len(word) >= _SHORT or (len(word) > 1 and not word.isdigit())}
    kept |= {str(header.get("PatientID") or "").strip()} - {""}  # whole, however short: folders are called by it
    return tuple(sorted(kept, key=lambda word: (-len(word), word)))


def code_of(text: str) -> str:
    """Return eight digits that stand for a text on this machine, and with the same key file on others.

    Raises:
        TskdError: the key can neither be read nor written.
    """
    return hmac.new(_key(), text.encode(), hashlib.sha256).hexdigest()[:8]


def without_identity(text: str, words: Iterable[str]) -> str:
    """Return a text with the code in place of each of the words, in whatever case they stand there."""
    known = {word.casefold(): word for word in words}
    if not known:
        return text
    longest_first = sorted(known, key=len, reverse=True)
    alone = {True: r"(?<![^\W_])%s(?![^\W_])", False: "%s"}
    pattern = "|".join(alone[len(word) < _SHORT] % re.escape(word) for word in longest_first)
    return re.sub(pattern, lambda match: code_of(known[match[0].casefold()]), text, flags=re.IGNORECASE)


@cache
def _key() -> bytes:
    from platformdirs import user_config_path  # here: a shipped bundle has this file, not the package, and asks no code

    path = Path(os.environ.get(VARIABLE) or user_config_path("tskd", appauthor=False) / "key").expanduser()
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, secrets.token_hex(32) + "\n")
            path.chmod(0o600)
        key = path.read_text(encoding="utf-8").strip().encode()
    except (OSError, ValueError) as error:
        raise TskdError(
            f"{path}: expected the key for codes of patients, found none and could not make it ({error}). Name a file "
            f"for it with the environment variable {VARIABLE}."
        ) from error
    if len(key) < 16:
        raise TskdError(f"{path}: expected a key of 16 characters or more, found {len(key)}. Remove the file.")
    return key
