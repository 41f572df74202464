"""The config of the running bundle: which settings a run used, and what makes it the same run as another."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from tskd.networks.weight_store import weights_identity

PATH_ENDINGS = ("_dir", "_file", "_files", "_root")  # of keys that say where something is
STEPS = ("imports", "initialize", "run", "finalize")  # keys that say how a run is started
TRACKING = ("tracking_uri", "experiment_name", "run_name", "save_execute_config")  # that MONAI's --tracking adds
PROCESSES = ("rank", "world_size", "not_first", "is_not_rank0")  # keys that differ between the processes of one run

# Keys that may differ between a run and its continuation; each stands for all below it. Paths may differ anyway.
MAY_DIFFER = (
    *STEPS,
    *PROCESSES,
    *("device", "amp_dtype", "memory_format", "compile", "gradient_checkpointing"),  # machine
    *("num_workers", "cache_rate", "batch_size"),  # its memory
    *("resume", "max_epochs", "val_interval", "patience", "validate", "largest_component", "scale_intensity"),
    *("preview_interval", "val_images", "sampler", "steps"),  # pictures on the way of a diffusion model
    *(
        "soft_labels",
        "teacher_model",
        "weights",
        "fingerprints",
        "train#dataset#data",
    ),  # files, whose fingerprints count
    *("train#handlers", "train#named_handlers", "train#dataloader#num_workers"),
    *("train#dataset#num_workers", "train#dataset#progress"),
    "train#dataloader#drop_last",  # an epoch has whole batches anyway
    *("train#trainer#network", "train#sampler#num_samples"),  # DistributedDataParallel
    *TRACKING,
)


def running_parser() -> ConfigParser | None:
    """Return the parser that is building the caller, None where no config does.

    MONAI hands its parser to no component, so it is looked up on the call stack. That serves `monai.bundle run` and a
    `ConfigWorkflow` in another program alike, with the overrides of both.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if isinstance(parser := frame.f_locals.get("self"), ConfigParser):
            return parser
        frame = frame.f_back  # type: ignore[assignment]
    return None


def merged_config(parser: ConfigParser | None) -> dict[str, Any]:
    """Return all config files and overrides of a run as one config, nothing resolved, without metadata and remarks."""
    config = {} if parser is None else parser.get() or {}
    return _without_remarks({key: value for key, value in config.items() if key != ConfigParser.meta_key})


def used_settings(parser: ConfigParser | None) -> dict[str, Any]:
    """Return the settings that a run has used: top-level keys of the config with plain values, expressions evaluated.

    What no part of the run has asked for, such as the learning rate in an evaluation, is left out.
    """
    resolved = {} if parser is None else parser.ref_resolver.resolved_content
    names = [key for key in merged_config(parser) if key not in (*STEPS, *PROCESSES, *TRACKING)]
    return {key: _without_remarks(resolved[key]) for key in names if key in resolved and _is_plain(resolved[key])}


def training_identity(parser: ConfigParser | None) -> dict[str, str]:
    """Return what has to agree between a training and its continuation: key -> value, one entry a value of the config.

    Paths are left out of the values: what the files hold is for a fingerprint to say. Weights to start from (keys that
    end in `_weights`) have theirs here.

    """
    config = {**merged_config(parser), **used_settings(parser)}
    values = {key: str(value) for key, value in _leaves(without_paths(config))}
    values |= {key: str(weights_identity(config[key])) for key in values if _names_weights(key, config)}
    identity = {key: value for key, value in values.items() if not is_below(key, MAY_DIFFER)}
    return dict(sorted(identity.items(), key=lambda item: item[0].count("#") > 0))  # the settings first


def is_below(key: str, parents: Sequence[str]) -> bool:
    """Return whether a key of a config, with `#` between its levels, is one of `parents` or below one of them.

    MONAI writes `::` for each `#` of a config's values, so the parents may have either.
    """
    return any(f"{key}#".startswith(f"{parent.replace('::', '#')}#") for parent in parents)


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the sha256 of a merged config without its paths.

    So runs of one hash had the same settings, wherever their files were; that the data and weights were the same it
    does not say.
    """
    text = json.dumps(without_paths(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def without_paths(value: Any, key: str = "") -> Any:
    """Return a config with "path" in place of each path.

    These are the values of keys that end in `_dir`, `_file`, `_files` or `_root`, and text with a slash that is no
    expression.
    """
    if isinstance(value, Mapping):
        return {name: without_paths(item, str(name)) for name, item in value.items()}
    if key.endswith(PATH_ENDINGS):
        return "path"
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    is_text = isinstance(value, str) and not value.startswith(("$", "@", "%"))
    is_path = isinstance(value, Path) or (is_text and "/" in value.replace("\\", "/"))
    return "path" if is_path else value


def _without_remarks(value: Any) -> Any:
    """Return a config without its keys `_desc_...`."""
    if isinstance(value, Mapping):
        return {key: _without_remarks(item) for key, item in value.items() if not str(key).startswith("_desc_")}
    return [_without_remarks(item) for item in value] if isinstance(value, list) else value


def _leaves(value: Any, parent: str = "") -> Iterator[tuple[str, Any]]:
    """(place, value) of everything in a config but its levels; a list of values is one of them."""
    nested = isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value)
    if not (value and (isinstance(value, Mapping) or nested)):
        yield parent, value
        return
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _leaves(item, f"{parent}#{key}" if parent else str(key))


def _names_weights(key: str, config: Mapping[str, Any]) -> bool:
    return key.endswith("_weights") and isinstance(config.get(key), str | Path)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return not any(isinstance(item, Mapping) for item in value) and all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)
