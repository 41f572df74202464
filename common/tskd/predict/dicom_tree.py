"""Group DICOM files by series, and skip what is no image to segment."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from tskd.data.io.identities import TAGS as IDENTITY
from tskd.data.io.identities import code_of, identity_words, without_identity

_TAGS = (
    *("SeriesNumber", "SeriesDescription", "Modality", "PatientIdentityRemoved"),
    *IDENTITY,
    *("SOPClassUID", "ImageType", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ProtocolName"),
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SCOUT = re.compile(r"local(is|iz)er|scout|topogram|surview|scanogram|3[- ]?plane", re.IGNORECASE)
_NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "SR", "PR", "KO", "REG", "DOC", "AU", "RWV")


@dataclass(frozen=True)
class Series:
    """One series of DICOM images.

    Args:
        files: of the series, in any order.
        patient: PatientID, "" if there is none.
        number: SeriesNumber, "" if there is none.
        description: SeriesDescription or ProtocolName, "" if there is none.
        uid: SeriesInstanceUID.
        identity: names, ids, dates and UIDs, which are not written; () where the files are anonymised.
    """

    files: tuple[Path, ...]
    patient: str
    number: str
    description: str
    uid: str
    identity: tuple[str, ...] = ()

    @property
    def display_name(self) -> str:
        """What the series is called in a line on the console."""
        return self._name(self.patient)

    @property
    def written_name(self) -> str:
        """The same for files, with a code in place of the patient where the files are not anonymised."""
        return without_identity(self._name(self._patient_code), self.identity)

    @property
    def _patient_code(self) -> str:
        return code_of(self.patient) if self.patient and self.identity else self.patient

    def _name(self, patient: str) -> str:
        description = f" {self.description}" if self.description else ""
        return f"{self.files[0].parent}: patient {patient or 'without ID'}, series {self.number or '?'}{description}"

    @property
    def stem(self) -> str:
        """A file name for it that no other series has: patient, number, description and the code of the UID.

        The patient is a code, too, where the files are not anonymised.
        """
        description = without_identity(self.description, self.identity)
        parts = [self._patient_code or "patient", self.number, description, code_of(self.uid)]
        return "_".join(re.sub(r"[^\w.+-]+", "-", part).strip("-.")[:40] for part in parts if part)


def read_header(path: Path) -> Dataset | None:
    """Read the tags that tell what a DICOM file is; None if it is not DICOM (without preamble it needs a SOP class)."""
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
    """Group instances into series to segment, and tell what is skipped.

    Returns:
        Series in order of patient and number; reason -> what was left out for it, such as "localizer" -> the series'
        names.
    """
    files: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path, header in headers:
        files[str(header.get("SeriesInstanceUID", path.parent))].append((path, header))
    series, skipped = [], defaultdict(list)
    for uid, instances in files.items():
        reasons = {reason for _, header in instances if (reason := _reason_to_skip(header))}
        images = [(path, header) for path, header in instances if not _reason_to_skip(header)]
        first = (images or instances)[0][1]
        one_series = Series(
            files=tuple(sorted(path for path, _ in images or instances)),
            patient=_tag_text(first, "PatientID"),
            number=_tag_text(first, "SeriesNumber"),
            description=_tag_text(first, "SeriesDescription") or _tag_text(first, "ProtocolName"),
            uid=uid,
            identity=identity_words(first),
        )
        for reason in sorted(reasons):
            skipped[reason].append(one_series.display_name)
        if images:
            series.append(one_series)
    series.sort(key=lambda item: (item.patient, int(item.number) if item.number.isdigit() else 0, item.uid))
    return series, dict(skipped)


def _reason_to_skip(header: Dataset) -> str | None:
    """Return why an instance is no image to segment; None if it is one."""
    modality = _tag_text(header, "Modality")
    if modality in _NO_IMAGES or "Rows" not in header:
        return f"{modality or 'DICOM'} object without an image of the patient"
    if _tag_text(header, "SOPClassUID").startswith(_SECONDARY_CAPTURE):
        return "secondary capture"
    types = [str(value).upper() for value in header.get("ImageType") or []]
    names = f"{_tag_text(header, 'SeriesDescription')} {_tag_text(header, 'ProtocolName')}"
    if "LOCALIZER" in types or _SCOUT.search(names):
        return "localizer"
    return None


def _tag_text(header: Dataset, tag: str) -> str:
    value = header.get(tag)
    return "" if value is None else str(value).strip()
