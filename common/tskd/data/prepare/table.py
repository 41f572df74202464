"""A table of files: which image, which label, which patient, which list; columns in any spelling."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tskd.errors import TskdError
from tskd.files import composed

SECTIONS = ("training", "validation", "test")
_COLUMNS = {  # what a column means -> its spellings, without case, blanks and signs
    "image": "image images img imagepath imagefile imagename file filename path filepath volume scan",
    "label": "label labels mask masks maskpath maskfile labelpath labelfile segmentation seg annotation groundtruth gt",
    "group": "group groups groupid patient patients patientid patientcode patientname patientno pid subject subjects "
    "subjectid subjectcode subj participant participantid person personid individual mrn",
    "split": "split splits set subset partition section dataset datasplit list",
    "fold": "fold folds foldid cvfold kfold",
}
_MEANING = {spelling: meaning for meaning, text in _COLUMNS.items() for spelling in text.split()}
_SECTION = {
    **dict.fromkeys(("training", "train", "tr", "trn"), "training"),
    **dict.fromkeys(("validation", "valid", "val", "vl", "dev", "development", "tune", "tuning"), "validation"),
    **dict.fromkeys(("test", "testing", "ts", "tst", "holdout", "heldout"), "test"),
}


@dataclass(frozen=True)
class Row:
    """A line of the table: image, label if there is one, patient and list ("" where the table has no such column)."""

    image: Path
    label: Path | None
    group: str
    section: str


@dataclass(frozen=True)
class Table:
    """The rows, whether the patients are known, and the columns that are not used."""

    rows: Sequence[Row]
    has_groups: bool
    unused: Sequence[str]


def read_table(path: Path) -> Table:
    """Read a CSV file with the columns image, label (empty: unlabelled), group and split, the last two if wanted.

    Columns may be spelt otherwise: Patient ID, subject, mask, set, ...; the separator is a comma, semicolon or tab.
    Paths are relative to the table.

    Raises:
        TskdError: no such file, no UTF-8, columns missing or given twice, a column fold, or a list of what is wrong in
            the rows.
    """
    if not path.is_file():
        raise TskdError(f"{path}: expected a CSV file, found none. Correct the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TskdError(f"{path}: expected UTF-8, found {error}. Save it as `CSV UTF-8`.") from error
    _by_composed_name.cache_clear()
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    names = [name.strip() for name in lines[0]] if lines else []
    columns, unused = _columns(path, names)
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if any(cell.strip() for cell in line)]
    if not {"image", "label"} <= columns.keys() or not rows:
        raise TskdError(
            f"{path}: expected the columns image, label and, if wanted, group and split, with rows below; found "
            f"{first.strip()!r} and {len(rows)} rows. Correct the table."
        )
    rows_read: list[Row] = []
    problems: list[str] = []
    for number, line in rows:
        if len(line) != len(names):
            problems.append(f"line {number}: {len(line)} cells under {len(names)} columns (a {separator!r} in a name?)")
            continue
        row, wrong = _row(path.parent, number, {meaning: line[at].strip() for meaning, at in columns.items()})
        rows_read.append(row)
        problems += wrong
    if problems:
        raise TskdError("\n  - ".join([f"{path}: {len(problems)} problems", *problems[:20]]))
    return Table(rows_read, "group" in columns, unused)


def case_names(images: Sequence[Path], stem: Callable[[Path], str]) -> dict[Path, str]:
    """Return a unique name for each image: its stem, with the folders above it where several share one."""
    depth, names = 1, {path: stem(path) for path in images}
    while True:
        count = Counter(names.values())
        alike = [path for path in names if count[names[path]] > 1 and len(path.parts) > depth + 1]
        if not alike:
            return names
        names |= {path: "_".join([*path.parts[-1 - depth : -1], stem(path)]) for path in alike}
        depth += 1


def _columns(path: Path, names: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Meaning -> position, and the columns that mean nothing here."""
    columns: dict[str, int] = {}
    unused = []
    for at, name in enumerate(names):
        meaning = _MEANING.get(re.sub(r"[\W_]+", "", name.casefold()))
        if meaning is None:
            unused.append(name or f"column {at + 1}")
        elif meaning in columns:
            raise TskdError(
                f"{path}: expected one column for the {meaning}, found {names[columns[meaning]]!r} and {name!r}. "
                "Remove or rename one of them."
            )
        else:
            columns[meaning] = at
    if "fold" in columns:
        raise TskdError(
            f"{path}: expected a column split (training, validation, test), found {names[columns['fold']]!r}. Write "
            "the lists of the fold that is meant into a column split, or draw folds by patient (--fold, --folds)."
        )
    return columns, unused


def _stored(folder: Path, name: str) -> Path:
    """Return the file of a name, also where the disk has its letters composed and the table has not, or the reverse."""
    path = folder / name
    if path.exists():
        return path
    reached = folder
    for part in Path(name).parts:
        below = reached / part
        reached = below if below.exists() else _by_composed_name(reached).get(composed(part), below)
    return reached


@cache
def _by_composed_name(folder: Path) -> dict[str, Path]:
    return {composed(path.name): path for path in folder.iterdir()} if folder.is_dir() else {}


def refuse_shared_masks(drawn: Iterable[tuple[Path, Path, str]]) -> None:
    """Refuse a mask that is given to images of several patients; the sequences of one may share it.

    Args:
        drawn: image, mask and patient.

    Raises:
        TskdError: naming the first few.
    """
    first: dict[Path, tuple[Path, str]] = {}
    shared = []
    for image, mask, group in drawn:
        before, patient = first.setdefault(mask.resolve(), (image, group))
        if patient != group and before != image:
            shared.append(f"{mask.name} of {before.name} and {image.name}")
    if shared:
        raise TskdError(
            f"masks: expected one for the images of a patient, found {', '.join(shared[:5])} ({len(shared)} such "
            "pairs). Correct the table, or say which images are of one patient (column group, or --group-pattern)."
        )


def _row(folder: Path, number: int, cells: Mapping[str, str]) -> tuple[Row, list[str]]:
    image, label, group = (cells.get(key, "") for key in ("image", "label", "group"))
    section = _SECTION.get(re.sub(r"[\W_]+", "", cells.get("split", "").casefold()), "")
    problems = [f"line {number}: no image"] * (not image)
    problems += [f"line {number}: no group"] * (not group and "group" in cells)
    files = [_stored(folder, name) for name in (image, label)]
    problems += [
        f"line {number}: no file {name}"
        for name, file in zip((image, label), files, strict=True)
        if name and not file.exists()
    ]
    if "split" in cells and not section:
        problems.append(f"line {number}: split {cells['split']!r} is none of {', '.join(SECTIONS)}")
    if section in ("validation", "test") and not label:
        problems.append(f"line {number}: an image of the {section} list needs a label")
    return Row(files[0], files[1] if label else None, group, section), problems
