"""The file dataset.json: MONAI's Decathlon datalist with patients, unlabelled images and provenance.

{"name": "chaos_mr", "modality": "MR", "channels": 1,
 "labels": {"0": "background", "1": "liver", ...}, "intensity": {"percentiles": [0.5, 99.5]},
 "training":   [{"image": "slices/1_012.png", "label": "slices/1_012_label.png", "group": "1", "case": "1_012"}, ...],
 "unlabelled": [{"image": ..., "group": ..., "case": ...}, ...],
 "validation": [...], "test": [...],
 "provenance": {"source": ..., "licence": ..., "tool": "tskd 0.1.0", "seed": 0}}

Paths are relative to the file. `group` is the patient: none is in two of training, validation and test. `training` is
stored in an order in which every prefix is a fair subset (`split.fair_order`): a budget of 80 labels is its first 80,
one of 3 patients all entries of the 3 that it names first.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.data.budget import Budget, split_training
from tskd.errors import TskdError
from tskd.files import write_json

LISTS = ("training", "unlabelled", "validation", "test")
SECTIONS = ("labelled", "unlabelled", "transfer", "validation", "test")
FILES = ("image", "label", "label_2nd")  # keys of an entry that hold a path; the last is a second observer's label
IGNORE = 255  # label value of a pixel that nobody labelled
KEYS = (*FILES, "group", "case")  # of an entry, what a training sees

_BACKGROUND = ("background", "back ground", "bg", "backgrd", "hintergrund")  # names of the mask value 0
_REQUIRED: dict[str, type] = {
    "name": str,
    "modality": str,
    "channels": int,
    "labels": dict,
    "training": list,
    "validation": list,
    "test": list,
}


def entries(dataset_file: str | os.PathLike[str], section: str, num_labelled: Budget = None) -> list[dict[str, str]]:
    """Return one list of the dataset, with absolute paths, ready for a MONAI Dataset.

    Args:
        dataset_file: path of dataset.json.
        section: "labelled" (those of training within the budget), "unlabelled" (the rest of training and the list
            `unlabelled`, all without the key `label`), "transfer" (images of both, without the key `label`),
            "validation" or "test".
        num_labelled: the labelled budget: the first so many training entries, all entries of the first "N patients", or
            None for all of the list.

    Returns:
        Entries {image, label?, group, case} without other keys: MONAI's collate fails on a batch that has them in part.

    Raises:
        TskdError: an unknown section, more labels asked for than there are, an empty list, or a malformed file.
    """
    if section not in SECTIONS:
        raise TskdError(f"section: expected one of {', '.join(SECTIONS)}, found {section!r}")
    data = read(dataset_file)
    labelled, unlabelled = split_training(data["training"], num_labelled, dataset_file)
    rest = unlabelled + data["unlabelled"]
    chosen = {
        "labelled": labelled,
        "unlabelled": [_without_label(entry) for entry in rest],
        "transfer": [_without_label(entry) for entry in labelled + rest],
        "validation": data["validation"],
        "test": data["test"],
    }[section]
    if not chosen:
        raise TskdError(
            f"{dataset_file}: expected at least one entry in section '{section}', found none "
            f"(num_labelled {num_labelled}; "
            + ", ".join(f"{len(data[name])} in '{name}'" for name in LISTS)
            + "). Add entries, change num_labelled or choose another section."
        )
    folder = Path(dataset_file).resolve().parent
    return [_absolute(entry, folder) for entry in chosen]


def read(dataset_file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of dataset.json, its structure checked (no image is opened; see `check` for that).

    Raises:
        TskdError: no such file, not JSON, or a list of everything that is wrong with its structure.
    """
    data = load(dataset_file)
    raise_if(structure_problems(data), dataset_file)
    return {"unlabelled": [], "provenance": {}, **data}


def write(dataset_file: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
    """Write dataset.json in one step: a reader sees the old file or the new one, never half of it.

    Raises:
        TskdError: the structure is not that of a dataset.json; nothing is written then.
    """
    raise_if(structure_problems(data), dataset_file)
    write_json(dataset_file, data)


def label_names(structures: Sequence[str]) -> dict[str, str]:
    """Return names of structures, for mask values 1, 2, ..., as the key `labels`: {"0": "background", "1": ..., ...}.

    Raises:
        TskdError: a name that is empty, given twice, or the background's.
    """
    names = {str(index): name for index, name in enumerate(["background", *structures])}
    if problems := name_problems(names):
        raise TskdError("; ".join(problems))
    return names


def name_problems(labels: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the names of `labels`: empty, twice, a structure named background, 0 named else."""
    problems = []
    plain = {key: " ".join(str(name).casefold().replace("_", " ").split()) for key, name in labels.items()}
    if "0" in plain and plain["0"] not in _BACKGROUND:
        problems.append(
            f"labels: expected 0 to be the background, found {labels['0']!r}. Number the structures from 1, as the "
            "masks do."
        )
    for key, name in plain.items():
        if key != "0" and name in _BACKGROUND:
            problems.append(
                f"labels: expected structures only, found {labels[key]!r} for the mask value {key}. 0 is the "
                "background: leave it out, and name what 1, 2, ... are."
            )
        if not name:
            problems.append(f"labels: expected a name for the mask value {key}, found none.")
    for name, times in Counter(plain.values()).items():
        if times > 1 and name and name not in _BACKGROUND:
            problems.append(
                f"labels: expected each name once, found {name!r} {times} times. Name the structures apart."
            )
    return problems


def structure_problems(data: Mapping[str, Any]) -> list[str]:
    """Return everything that is wrong with keys, types, names and groups, one line each; empty if all is well."""
    problems = []
    for key, kind in _REQUIRED.items():
        if not isinstance(data.get(key), kind):
            value = f"{type(data[key]).__name__} {str(data[key])[:40]!r}" if key in data else "no such key"
            problems.append(f"{key}: expected a {kind.__name__}, found {value}. Add or correct the key.")
    labels = data.get("labels")
    if isinstance(labels, dict) and list(labels) != [str(index) for index in range(len(labels))]:
        problems.append(
            f'labels: expected keys "0" (background), "1", ... in order without gaps, found {list(labels)}. '
            "Renumber them."
        )
    if isinstance(labels, dict) and len(labels) < 2:
        problems.append(f"labels: expected background and at least one structure, found {labels}. Name the structures.")
    if isinstance(labels, dict):
        problems += name_problems(labels)
    for name in LISTS:
        if isinstance(data.get(name, []), list):
            problems += _entry_problems(name, data.get(name, []))
        else:
            problems += [f"{name}: expected a list, found {type(data[name]).__name__}."] * (name not in _REQUIRED)
    return problems + _repetition_problems(data) + _leak_problems(data)


def named_entries(data: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return all well-formed entries as (list name, entry)."""
    named = []
    for name in LISTS:
        section = data.get(name, [])
        named += [(name, entry) for entry in section if isinstance(entry, dict)] if isinstance(section, list) else []
    return named


def _entry_problems(name: str, section: list[Any]) -> list[str]:
    needed = ["image", "group", "case"] + ["label"] * (name != "unlabelled")
    problems = []
    for position, entry in enumerate(section):
        if not isinstance(entry, dict):
            problems.append(f"{name}[{position}]: expected an object with {', '.join(needed)}, found {entry!r}.")
            continue
        for key in needed:
            if not (isinstance(entry.get(key), str) and entry[key]):
                problems.append(
                    f"{name}[{position}] (case {entry.get('case')!r}): expected text under '{key}', "
                    f"found {entry.get(key)!r}. Fill it in" + ("." if key != "group" else " (the patient's code).")
                )
        for key in FILES[1:]:
            if name == "unlabelled" and key in entry:
                problems.append(
                    f"{name}[{position}] (case {entry.get('case')!r}): expected no key '{key}', found {entry[key]!r}. "
                    "Move the entry to 'training' or remove the key."
                )
    return problems


def _repetition_problems(data: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, fix in (("case", "Give each case a name of its own."), ("image", "List each image once.")):
        listed = [str(entry[key]) for _, entry in named_entries(data) if key in entry]
        values = Counter(listed if key == "case" else map(os.path.normpath, listed))
        problems += [f"{key} '{v}': expected once, found {n} times. {fix}" for v, n in values.items() if n > 1]
    return problems


def _leak_problems(data: Mapping[str, Any]) -> list[str]:
    groups: dict[str, set[str]] = {name: set() for name in LISTS}
    for name, entry in named_entries(data):
        groups[name].add(str(entry.get("group")))
    problems = []
    for first, second in (
        ("training", "validation"),
        ("training", "test"),
        ("validation", "test"),
        ("unlabelled", "validation"),
        ("unlabelled", "test"),
    ):
        for group in sorted(groups[first] & groups[second]):
            problems.append(
                f"group '{group}': expected in one list, found in '{first}' and '{second}'. One patient on both sides "
                "makes every measured number too good: move all its entries to one of them."
            )
    return problems


def load(dataset_file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the file as it is, unchecked; TskdError if it is missing or no JSON object."""
    path = Path(dataset_file)
    if not path.is_file():
        raise TskdError(f"{path}: expected a dataset.json, found no such file. Make one with `tskd prepare`.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TskdError(f"{path}: expected JSON, found {error}. Correct the file or prepare it again.") from error
    if not isinstance(data, dict):
        raise TskdError(f"{path}: expected a JSON object, found a {type(data).__name__}.")
    return data


def raise_if(problems: list[str], dataset_file: str | os.PathLike[str]) -> None:
    """Raise one TskdError that lists all problems, if there are any."""
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise TskdError(f"{dataset_file}: {len(problems)} problem{'s' * (len(problems) > 1)}{lines}")


def _without_label(entry: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in entry.items() if key not in FILES[1:]}


def _absolute(entry: Mapping[str, str], folder: Path) -> dict[str, str]:
    values = {key: entry[key] for key in KEYS if key in entry}
    return {key: os.path.normpath(folder / value) if key in FILES else value for key, value in values.items()}
