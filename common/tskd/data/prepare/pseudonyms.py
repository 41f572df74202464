"""Codes in place of the names, ids and dates that the folders of DICOM series are called by."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tskd.data.io.dicom_series import words_of
from tskd.data.io.identities import without_identity
from tskd.data.prepare.inventory import Inventory
from tskd.data.prepare.volume_checks import Patient

logger = logging.getLogger(__name__)


def without_identities(
    scans: Sequence[Patient], split: Mapping[str, Sequence[str]], inventory: Inventory
) -> tuple[list[Patient], dict[str, list[str]]]:
    """Return scans and split as they are written: with codes for what DICOM headers say of a person.

    A word is replaced where it stands in the name of a folder or a code of a patient; the files' own names stay what
    they are. Series whose header says that the identity was removed keep their names.

    Args:
        scans: with their patient and case.
        split: list -> patients.
        inventory: told what its text must not name.
    """
    words = sorted({word for scan in scans if scan.image.is_dir() for word in words_of(scan.image)})
    if not words:
        return list(scans), {key: list(groups) for key, groups in split.items()}

    def code(text: str) -> str:
        return without_identity(text, words)

    coded = [replace(scan, group=code(scan.group), case=code(scan.case)) for scan in scans]
    changed = sum(new != old for new, old in zip(coded, scans, strict=True))
    cases = Counter(scan.case for scan in coded)
    number: Counter[str] = Counter()
    for position, scan in enumerate(coded):  # DOE and doe are one word
        if cases[scan.case] > 1:
            number[scan.case] += 1
            coded[position] = replace(scan, case=f"{scan.case}_{number[scan.case]}")
    inventory.identity = tuple(words)
    if changed:
        logger.warning(
            "%d DICOM series are called by a name, an id or a date of their patient: codes are written instead. The "
            "codes are the same in every data set that is prepared with your key (see docs/inputs.md).",
            changed,
        )
    return coded, {key: sorted({code(group) for group in groups}) for key, groups in split.items()}
