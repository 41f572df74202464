"""The inferer of a shipped student that sees several slices: neighbours as channels (2.5-D) or patches (3-D).

Both are expressions of MONAI and PyTorch in inference.json, as validation has them in volume.json and neighbours.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.predict.shipped_inferer import STACK, WINDOWS, WITH_NEIGHBOURS

SEVERAL_SLICES = ("neighbour_slices", "patch_size", "anisotropy", "first_filters")  # settings of such a training
CONTIGUOUS = "$torch.contiguous_format"  # memory_format of what is no 2-D student: torch.channels_last is for 2-D alone


def several_slices(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a training by which its student sees several slices; none of a 2-D student."""
    given = {key: settings[key] for key in SEVERAL_SLICES if settings.get(key) is not None}
    return given if given.get("neighbour_slices") or given.get("patch_size") else {}


def inferer_keys(several: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys of inference.json that let its student see several slices; none for a 2-D student.

    Args:
        several: as `several_slices` gives it.
        config: inference.json for volumes.
    """
    if count := several.get("neighbour_slices"):
        return {
            "neighbour_slices": count,
            "_desc_neighbour_slices": "on each side, as further channels; at the ends the border slice again",
            "network_channels": config["in_channels"] * (2 * count + 1),
            "stack_neighbours": STACK,
            "slice_inferer": config["plain_inferer"],
            "plain_inferer": WITH_NEIGHBOURS,
        }
    if patch := several.get("patch_size"):
        return {
            "patch_size": [int(side) for side in patch],
            "_desc_patch_size": "voxels of what the network sees; batch_size counts slices",
            "memory_format": CONTIGUOUS,
            "plain_inferer": WINDOWS,
        }
    return {}


def resolved_network(files: Sequence[str | Path], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network that configs define, with plain values in place of references and expressions.

    Args:
        files: configs, an overlay after what it changes.
        values: values of keys, in their order; those of network_def win.

    Raises:
        TskdError: a network whose definition cannot be written without this project.
    """
    from monai.bundle import ConfigParser  # the names above are read without waiting for MONAI

    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.update(dict(values))
    names = [key for key in parser.get("network_def") if not key.startswith("_desc_")]
    network = {
        key: parser.get(f"network_def#{key}") if key[0] == "_" else parser.get_parsed_content(f"network_def#{key}")
        for key in names
    }
    try:
        return json.loads(json.dumps(network))
    except TypeError as error:
        raise TskdError(
            f"{', '.join(map(str, files))}: expected numbers, texts and lists in network_def, found {error}. "
            "Give the network's arguments as plain values"
        ) from error
