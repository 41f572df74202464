"""Find the images to segment among files and folders, and name their masks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tskd.data.io.image_files import SUFFIXES as PICTURES
from tskd.errors import TskdError
from tskd.files import files_below
from tskd.predict.dicom_tree import group_series, read_header

NIFTI = (".nii", ".nii.gz")
DETACHED = (".nhdr", ".mhd")  # headers whose voxels are in a file of their own
_WRITTEN = re.compile(r"_(seg\.(nii|nii\.gz|png|dcm|nrrd|mha)|overlay\.png)$", re.IGNORECASE)
ITK = (".nrrd", ".mha", *DETACHED)


@dataclass(frozen=True)
class Case:
    """One image to segment.

    Args:
        files: one file, or those of a DICOM series.
        kind: "nifti", "dicom", "itk" or "picture".
        display_name: what it is called in a line of output.
        stem: path of its mask under the output folder without "_seg" and ending; no other case has it.
        identity: names, ids, dates and UIDs of a DICOM series, for which codes are written.
        written_name: display_name as it is written to files, "" for the same.
    """

    files: tuple[Path, ...]
    kind: str
    display_name: str
    stem: str
    identity: tuple[str, ...] = ()
    written_name: str = ""


@dataclass(frozen=True)
class CaseList:
    """Cases to segment, and what was skipped: reason -> names."""

    cases: list[Case]
    skipped: dict[str, list[str]]


def find_cases(inputs: Sequence[str | Path], output: Path) -> CaseList:
    """Find the images among files and folders, at any depth.

    NIfTI, NRRD and MetaImage files and pictures are a case each, DICOM files a case for each SeriesInstanceUID wherever
    they lie. Links to folders are followed. Hidden files and what lies in `output` below a folder are passed over;
    where `output` is that folder or holds it, masks and overlays alone are skipped (`_seg` or `_overlay` before the
    ending).

    Raises:
        TskdError: an input does not exist, or there is no image.
    """
    cases: list[Case] = []
    headers = []
    skipped: dict[str, list[str]] = defaultdict(list)
    known_files: set[Path] = set()
    for root in map(Path, inputs):
        if not root.exists():
            raise TskdError(f"{root}: expected a file or folder to segment, found none. Correct the path.")
        among_masks = root.is_dir() and root.resolve().is_relative_to(output.resolve())
        for path in _walk(root, output):
            if (resolved := path.resolve()) in known_files:
                continue
            known_files.add(resolved)
            if among_masks and _WRITTEN.search(path.name):
                skipped["mask in the folder that masks are written to"].append(str(path))
                continue
            kind, ending = file_kind(path)
            if kind is not None:
                relative = path.relative_to(root) if root.is_dir() else Path(path.name)
                stem = relative.with_name(relative.name[: -len(ending)]).as_posix()
                cases.append(Case((path,), kind, str(path), stem))
            elif (header := read_header(path)) is not None:
                headers.append((path, header))
            elif not (_belongs_to_header(path) or (among_masks and path.name == "summary.csv")):
                skipped["file of another kind"].append(str(path))
    series, other_objects = group_series(headers)
    cases += [
        Case(item.files, "dicom", item.display_name, item.stem, item.identity, item.written_name) for item in series
    ]
    case_list = CaseList(_unique_stems(cases), {**other_objects, **skipped})
    if not cases:
        reasons = "; ".join(f"{len(names)} x {reason} ({names[0]})" for reason, names in case_list.skipped.items())
        raise TskdError(
            f"{', '.join(map(str, inputs))}: expected images (NIfTI, DICOM, NRRD, MHA, PNG, JPEG, TIFF), found "
            f"{reasons or 'no file'}. Correct the path."
        )
    return case_list


def _walk(root: Path, output: Path) -> Iterator[Path]:
    """Yield the files of a folder in order of their paths, but for those that lie in `output` below it."""
    if root.is_file():
        yield root
        return
    output = output.resolve()
    inside = root.resolve().is_relative_to(output)
    for path in sorted(files_below(root, None if inside else output)):
        if path.name != "DICOMDIR" and path.is_file() and (inside or output not in path.resolve().parents):
            yield path


def _belongs_to_header(path: Path) -> bool:
    """Return whether a file holds the voxels of a header of its name beside it (NRRD, MetaImage), which is the case."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    return any(path.with_name(stem + ending).is_file() for ending in DETACHED)


def file_kind(path: Path) -> tuple[str | None, str]:
    """Return the kind of an image file as in `Case`, None for another file, and the ending of its name."""
    name = path.name.lower()
    for kind, endings in (("nifti", NIFTI), ("itk", ITK), ("picture", PICTURES)):
        for ending in sorted(endings, key=len, reverse=True):
            if name.endswith(ending) and len(name) > len(ending):
                return kind, ending
    return None, ""


def _unique_stems(cases: list[Case]) -> list[Case]:
    """Give the cases stems that differ in any case of letters: the others get their ending, then a number."""
    count = Counter(case.stem.lower() for case in cases)
    named = [
        replace(case, stem=f"{case.stem}_{file_kind(case.files[0])[1].strip('.').replace('.', '_') or 'dicom'}")
        if count[case.stem.lower()] > 1
        else case
        for case in cases
    ]
    used: set[str] = set()
    unique = []
    for case in named:
        stem, number = case.stem, 2
        while stem.lower() in used:
            stem, number = f"{case.stem}_{number}", number + 1
        used.add(stem.lower())
        unique.append(replace(case, stem=stem))
    return unique
