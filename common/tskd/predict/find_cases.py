"""Which images of a mixture of files and folders are to be segmented, and what their masks are called."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tskd.data.io.image_files import SUFFIXES as PICTURES
from tskd.errors import TskdError
from tskd.predict.dicom_tree import group_series, read_header

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class Case:
    """One image to segment.

    Args:
        files: one file, or those of a DICOM series.
        kind: "nifti", "dicom", "itk" or "picture".
        words: what it is called in a line of output.
        stem: path of its mask under the output folder without "_seg" and ending; no other case has it.
    """

    files: tuple[Path, ...]
    kind: str
    words: str
    stem: str


@dataclass(frozen=True)
class Found:
    """Cases, and what was left out: reason -> names."""

    cases: list[Case]
    left_out: dict[str, list[str]]


def find_cases(inputs: Sequence[str | Path], output: Path) -> Found:
    """Find the images among files and folders, at any depth.

    NIfTI, NRRD and MetaImage files and pictures are a case each, DICOM files a case for each SeriesInstanceUID wherever
    they lie. Hidden files and what lies in `output` are passed over.

    Raises:
        TskdError: an input does not exist, or there is no image.
    """
    cases: list[Case] = []
    headers = []
    left_out: dict[str, list[str]] = defaultdict(list)
    seen: set[Path] = set()
    for root in map(Path, inputs):
        if not root.exists():
            raise TskdError(f"{root}: expected a file or folder to segment, found none. Correct the path.")
        for path in _files(root, output):
            if (place := path.resolve()) in seen:
                continue
            seen.add(place)
            kind, ending = _kind(path)
            if kind is not None:
                relative = path.relative_to(root) if root.is_dir() else Path(path.name)
                stem = relative.with_name(relative.name[: -len(ending)]).as_posix()
                cases.append(Case((path,), kind, str(path), stem))
            elif (header := read_header(path)) is not None:
                headers.append((path, header))
            else:
                left_out["file of another kind"].append(str(path))
    series, objects = group_series(headers)
    cases += [Case(item.files, "dicom", item.words, item.stem) for item in series]
    found = Found(_distinct(cases), {**objects, **left_out})
    if not cases:
        said = "; ".join(f"{len(names)} x {reason} ({names[0]})" for reason, names in found.left_out.items())
        raise TskdError(
            f"{', '.join(map(str, inputs))}: expected images (NIfTI, DICOM, NRRD, MHA, PNG, JPEG, TIFF), found "
            f"{said or 'no file'}. Correct the path."
        )
    return found


def _files(root: Path, output: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    output = output.resolve()
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not hidden and output not in path.resolve().parents and path.name != "DICOMDIR":
            yield path


def _kind(path: Path) -> tuple[str | None, str]:
    name = path.name.lower()
    for kind, endings in (("nifti", NIFTI), ("itk", ITK), ("picture", PICTURES)):
        for ending in sorted(endings, key=len, reverse=True):
            if name.endswith(ending) and len(name) > len(ending):
                return kind, ending
    return None, ""


def _distinct(cases: list[Case]) -> list[Case]:
    """The cases with stems that differ in any case of letters: the others get their ending, then a number."""
    count = Counter(case.stem.lower() for case in cases)
    named = [
        replace(case, stem=f"{case.stem}_{_kind(case.files[0])[1].strip('.').replace('.', '_') or 'dicom'}")
        if count[case.stem.lower()] > 1
        else case
        for case in cases
    ]
    used: set[str] = set()
    found = []
    for case in named:
        stem, number = case.stem, 2
        while stem.lower() in used:
            stem, number = f"{case.stem}_{number}", number + 1
        used.add(stem.lower())
        found.append(replace(case, stem=stem))
    return found
