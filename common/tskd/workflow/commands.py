"""Command lines of the stages, as the README shows them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.export.several_slices import SEVERAL_SLICES
from tskd.options import NONE, unknown_key

BUNDLES = Path(__file__).resolve().parents[3] / "bundles"
TEACHER, DDPM, STUDENT = "teacher_segmentation", "ddpm_synthesis", "student_segmentation"
SECTIONS = {TEACHER: "teacher", DDPM: "ddpm", STUDENT: "student"}  # of a study's key `overrides`

# keys of a training that its model goes on with: which network it is, and what is done before and after it
MODEL = ("network_def", "image_size", "vfm", "scale_intensity", "largest_component", *SEVERAL_SLICES)


def config_files(bundle: str, configs: Sequence[str]) -> tuple[str, ...]:
    """Return paths of a bundle's configs, given by their names without `.json`."""
    return tuple(str(BUNDLES / bundle / "configs" / f"{config}.json") for config in configs)


def defines_network(bundle: str, config: str) -> bool:
    """Return whether a config of a bundle, an overlay, puts another network in place of the bundle's own."""
    return any(key.split("#")[0] == "network_def" for key in _content(bundle, config))


def names_network(bundle: str, config: str) -> bool:
    """Return whether a config of a bundle says which network it is, or what that starts with.

    One that changes a part of whatever network it is, as neighbours.json does, does not.
    """
    return not {"network_def", "network_def#_target_", "configured"}.isdisjoint(_content(bundle, config))


def _content(bundle: str, config: str) -> dict[str, Any]:
    """Content of a config.

    Raises:
        TskdError: the bundle has none of this name.
    """
    (file,) = config_files(bundle, [config])
    if not Path(file).is_file():
        names = sorted(path.stem for path in Path(file).parent.glob("*.json"))
        close = difflib.get_close_matches(config, names, n=3) or names
        raise TskdError(
            f"configs: expected configs of {bundle}, found no {config}.json; close names: {', '.join(close)}"
        )
    return json.loads(Path(file).read_text(encoding="utf-8"))


def bundle_command(bundle: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `python -m` arguments of `monai.bundle run`.

    Args:
        bundle: folder below bundles/.
        configs: names of its configs, an overlay after what it changes.
        overrides: key -> value; the key as in the config, with `#` between its levels.
    """
    files = config_files(bundle, configs)
    config = files[0] if len(files) == 1 else str(list(files))
    texts = {key: NONE if value is None else str(value) for key, value in overrides.items()}
    values = [part for key, text in texts.items() for part in (f"--{key}", text)]
    return ("monai.bundle", "run", "--config_file", config, "--bundle_root", str(BUNDLES / bundle), *values)


def options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return options of the `tskd` command: `--key value`, a list as several values, `true` as the option alone."""
    parts: list[str] = []
    for key, value in values.items():
        if value is False or value is None:
            continue
        parts.append(f"--{key}")
        if value is not True:
            parts += [str(item) for item in (value if isinstance(value, list) else [value])]
    return tuple(parts)


def shared_overrides(study: Mapping[str, Any], bundle: str, dataset: str) -> dict[str, Any]:
    """Return what a study sets in every run of a bundle on a data set; the data set's own sections win."""
    scopes = (study.get("overrides", {}), study["datasets"][dataset].get("overrides", {}))
    sections = [scope.get(section, {}) for scope in scopes for section in ("all", SECTIONS[bundle])]
    return {key: value for section in sections for key, value in section.items()}


def fill(study: Mapping[str, Any], value: Any) -> Any:
    """Return a text of a study with its `data_root` in place of `{data_root}`; anything else as it is."""
    return value.replace("{data_root}", str(study.get("data_root", ""))) if isinstance(value, str) else value


def has_key(bundle: str, configs: tuple[str, ...], key: str) -> bool:
    """Return whether the configs of a run have a key; a study's shared sections set it only there."""
    exist = all(Path(file).is_file() for file in config_files(bundle, configs))  # `check_study` names those that do not
    return exist and not unknown_key(key, merged_config(bundle, configs))


@cache
def merged_config(bundle: str, configs: tuple[str, ...]) -> dict[str, Any]:
    """Return the configs of a run as one, as MONAI merges them, with nothing resolved (and without importing MONAI)."""
    result: dict[str, Any] = {}
    for config in configs:
        for key, value in _content(bundle, config).items():
            *parents, last = key.split("#")
            level: Any = result
            for parent in parents:
                level = level[int(parent)] if isinstance(level, list) else level.setdefault(parent, {})
            level[int(last) if isinstance(level, list) else last] = value
    return result
