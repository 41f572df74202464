"""The page of settings: every key exists in the bundles, and plain defaults are those of the configs."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tskd.options import unknown_key

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/configs.md").read_text(encoding="utf-8")
STUDENT, TEACHER, DDPM = "student_segmentation", "teacher_segmentation", "ddpm_synthesis"
# section of the page, in their order: configs whose keys its tables list, one tuple a table
TABLES: list[tuple[str, tuple[str, ...]]] = [
    (TEACHER, ("train",)),
    (STUDENT, ("train",)),
    (TEACHER, ("train",)),
    (STUDENT, ("train",)),
    (STUDENT, ("train", "distill")),
    (STUDENT, ("train", "distill", "averaged", "joint", "semi")),
    (DDPM, ("train",)),
    (DDPM, ("inference",)),
]


def config(bundle: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the merged config, with the keys `a#b` of overlays put into their places."""
    merged: dict[str, Any] = {}
    for name in names:
        text = (ROOT / "bundles" / bundle / "configs" / f"{name}.json").read_text(encoding="utf-8")
        for key, value in json.loads(text).items():
            *above, last = key.split("#")
            place = merged
            for part in above:
                place = place.setdefault(part, {})
            place[last] = value
    return merged


def item(settings: Any, key: str) -> Any:
    for part in key.split("#"):
        settings = settings.get(part, "$") if isinstance(settings, dict) else "$"
    return settings


def rows() -> list[list[tuple[list[str], str]]]:
    """Keys and default of each row, table by table."""
    tables = re.findall(r"^\| key \|.*\n\|[-| ]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    split = [[re.split(r"(?<!\\) \| ", line.strip("| \n")) for line in table.splitlines()] for table in tables]
    return [[(re.findall(r"`([^`]+)`", cells[0]), cells[1]) for cells in table] for table in split]


def test_every_table_has_its_configs() -> None:
    assert len(rows()) == len(TABLES)


@pytest.mark.parametrize("table", range(len(TABLES)))
def test_keys_and_defaults_are_those_of_the_configs(table: int) -> None:
    bundle, names = TABLES[table]
    settings = config(bundle, names)
    wrong = []
    for keys, default in rows()[table]:
        wrong += [f"{key}: {fault}" for key in keys if (fault := unknown_key(key, settings))]
        given = [text.strip().strip("`") for text in default.split(", ")]
        for key, text in zip(keys, given, strict=False):
            value = item(settings, key)
            if len(given) != len(keys) or isinstance(value, dict | list) or str(value).startswith(("$", "@")):
                continue  # described in words, or an expression
            words = re.sub(r" \(.*?\)$", "", text)
            shown = {"null": None, "true": True, "false": False}.get(words, words)
            if shown != value and str(value) != words and not _equal(words, value):
                wrong.append(f"{key}: the page says {text}, the config {value!r}")
    assert not wrong, "\n".join(wrong)


def _equal(text: str, value: Any) -> bool:
    try:
        return bool(ast.literal_eval(text) == value)
    except (SyntaxError, ValueError):
        return False
