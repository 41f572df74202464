"""YAML files of the workflow against their JSON schemas, every problem at once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from tskd.errors import TskdError

WORKFLOW = Path(__file__).resolve().parents[3] / "workflow"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return content of a YAML file that holds a mapping.

    Raises:
        TskdError: when there is no such file, or it is not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TskdError(f"{path}: expected a YAML file, found {error}") from error
    if not isinstance(content, dict):
        raise TskdError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def schema_problems(content: Mapping[str, Any], schema: str) -> list[str]:
    """Return one line for each place where `content` breaks the schema: where, what was expected, what was found.

    Args:
        content: parsed YAML.
        schema: name of a JSON schema in `workflow/`.
    """
    validator = Draft202012Validator(json.loads((WORKFLOW / schema).read_text(encoding="utf-8")))
    return sorted(_line(error) for error in validator.iter_errors(content))


def refuse(problems: list[str], where: str) -> None:
    """Raise a `TskdError` that lists all problems, if there are any."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise TskdError(f"{where}: {count}\n" + "\n".join(f"  {problem}" for problem in problems))


def _line(error: ValidationError) -> str:
    key = "/".join(map(str, error.absolute_path)) or "top level"
    value = error.instance
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema["properties"])
        unknown = sorted(value.keys() - set(allowed))
        close = [match for key in unknown for match in difflib.get_close_matches(str(key), allowed, n=1)]
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        return f"{key}: expected only the keys {', '.join(allowed)}; found {', '.join(map(str, unknown))}{hint}"
    if error.validator == "required":
        missing = sorted(set(error.validator_value) - value.keys())
        return f"{key}: expected the key {', '.join(missing)}, found {', '.join(sorted(map(str, value))) or 'none'}"
    if error.validator == "dependentRequired":
        missing = sorted({one for known, needed in error.validator_value.items() if known in value for one in needed})
        return f"{key}: expected the key {', '.join(missing)} beside {', '.join(error.validator_value)}, found none"
    expected = {
        "type": lambda value: " or ".join([value] if isinstance(value, str) else value),
        "enum": lambda value: "one of " + ", ".join(map(str, value)),
        "minimum": lambda value: f"at least {value}",
        "exclusiveMinimum": lambda value: f"more than {value}",
        "minItems": lambda value: f"at least {value} item",
        "minProperties": lambda value: f"at least {value} key",
        "uniqueItems": lambda value: "no value twice",
        "pattern": lambda value: f"a name like {value}",
    }
    if error.validator in expected:
        return f"{key}: expected {expected[error.validator](error.validator_value)}, found {value!r}"
    return f"{key}: {error.message}"
