"""The DICOM series in a tree of files: which files belong together, and which are no images to segment."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

_TAGS = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    *("SOPClassUID", "ImageType", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ProtocolName"),
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SCOUT = re.compile(r"local(is|iz)er|scout|topogram|surview|scanogram|3[- ]?plane", re.IGNORECASE)
_NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "SR", "PR", "KO", "REG", "DOC", "AU", "RWV")


@dataclass(frozen=True)
class Series:
    """One series of images.

    Args:
        files: of the series, in any order.
        patient: PatientID, "" if there is none.
        number: SeriesNumber, "" if there is none.
        description: SeriesDescription or ProtocolName, "" if there is none.
        uid: SeriesInstanceUID.
    """

    files: tuple[Path, ...]
    patient: str
    number: str
    description: str
    uid: str

    @property
    def words(self) -> str:
        """What the series is called in a line of output."""
        said = f" {self.description}" if self.description else ""
        return f"{self.files[0].parent}: patient {self.patient or 'without ID'}, series {self.number or '?'}{said}"

    @property
    def stem(self) -> str:
        """A file name for it that no other series has: patient, number, description and eight digits of the UID."""
        parts = [
            self.patient or "patient",
            self.number,
            self.description,
            hashlib.sha256(self.uid.encode()).hexdigest()[:8],
        ]
        return "_".join(re.sub(r"[^\w.+-]+", "-", part).strip("-.")[:40] for part in parts if part)


def read_header(path: Path) -> Dataset | None:
    """The tags that say what a DICOM file is; None if it is not DICOM (a file without preamble needs a SOP class)."""
    try:
        with open(path, "rb") as file:
            marked = file.read(132)[128:] == b"DICM"
        if not marked and path.suffix.lower() not in ("", ".dcm", ".ima", ".dicom") and not path.suffix[1:].isdigit():
            return None
        header = pydicom.dcmread(path, force=not marked, stop_before_pixels=True, specific_tags=list(_TAGS))
    except Exception:  # whatever a file that is something else makes of the parser
        return None
    return header if "SOPClassUID" in header else None


def group_series(headers: Iterable[tuple[Path, Dataset]]) -> tuple[list[Series], dict[str, list[str]]]:
    """Series to segment, and what is left out.

    Returns:
        Series in order of patient and number; reason -> what was left out for it, such as "localizer" -> the series'
        names.
    """
    files: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path, header in headers:
        files[str(header.get("SeriesInstanceUID", path.parent))].append((path, header))
    series, left_out = [], defaultdict(list)
    for uid, found in files.items():
        reasons = {why for _, header in found if (why := _left_out(header))}
        kept = [(path, header) for path, header in found if not _left_out(header)]
        first = (kept or found)[0][1]
        made = Series(
            files=tuple(sorted(path for path, _ in kept or found)),
            patient=_text(first, "PatientID"),
            number=_text(first, "SeriesNumber"),
            description=_text(first, "SeriesDescription") or _text(first, "ProtocolName"),
            uid=uid,
        )
        for reason in sorted(reasons):
            left_out[reason].append(made.words)
        if kept:
            series.append(made)
    series.sort(key=lambda item: (item.patient, int(item.number) if item.number.isdigit() else 0, item.uid))
    return series, dict(left_out)


def _left_out(header: Dataset) -> str | None:
    """Why an instance is no image to segment; None if it is one."""
    modality = _text(header, "Modality")
    if modality in _NO_IMAGES or "Rows" not in header:
        return f"{modality or 'DICOM'} object without an image of the patient"
    if _text(header, "SOPClassUID").startswith(_SECONDARY_CAPTURE):
        return "secondary capture"
    types = [str(value).upper() for value in header.get("ImageType") or []]
    names = f"{_text(header, 'SeriesDescription')} {_text(header, 'ProtocolName')}"
    if "LOCALIZER" in types or _SCOUT.search(names):
        return "localizer"
    return None


def _text(header: Dataset, tag: str) -> str:
    value = header.get(tag)
    return "" if value is None else str(value).strip()
