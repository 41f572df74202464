"""The inferers that `tskd ship` writes into inference.json, as expressions of MONAI and PyTorch alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tskd.errors import TskdError

STACK = (  # as `tskd.data.neighbour_slices.NeighbourChannels`
    "$(lambda count: lambda image, dim: torch.cat([image[..., [min(max(z + k, 0), image.shape[-1] - 1) "
    "for z in range(image.shape[-1])]] for k in range(-count, count + 1)], dim))(@neighbour_slices)"
)
WITH_NEIGHBOURS = (
    "$(lambda one, stack: lambda inputs, network, *more, **named: one(stack(inputs, 1), network, *more, **named))"
    "(@slice_inferer, @stack_neighbours)"
)
WINDOWS = {  # as validation has it in volume.json
    "_target_": "SlidingWindowInferer",
    "roi_size": "@patch_size",
    "sw_batch_size": "$max(1, @batch_size // @patch_size#2)",
    "overlap": 0.5,
    "mode": "gaussian",
    "padding_mode": "replicate",
}
SLICES = {
    "_target_": "SliceInferer",
    "roi_size": ["@image_size", "@image_size"],
    "sw_batch_size": "@batch_size",
    "spatial_dim": 2,
}
AXES = ("x", "y")  # of arrays [C, X, Y(, Z)]: x is from right to left of a patient, or along the columns of a picture
FLIPPED_X = "$'x' in @flips"  # average_mirrored, where nobody chose in MONAI Label
FLIP_WAYS = (  # dimensions of a batch that are flipped, for each image of the mean
    "$[x + y for x in ([[], [2]] if @displayable_configs#average_mirrored else [[]]) "
    "for y in ([[], [3]] if 'y' in @flips else [[]])]"
)
FLIPPED = (
    "$(lambda one, ways: lambda inputs, network, *more, **named: sum(one(inputs.flip(way), network, *more, **named)"
    ".flip(way) for way in ways) / len(ways))(@plain_inferer, @flip_ways)"
)
CHOSEN = "$@flipped_inferer if len(@flip_ways) > 1 else @plain_inferer"
_MIRRORED = (  # before `flips`: left to right
    "$(lambda one: lambda inputs, network, *more, **named: (one(inputs, network, *more, **named) + "
    "one(inputs.flip(2), network, *more, **named).flip(2)) / 2)(@plain_inferer)"
)
_MIRRORED_CHOSEN = "$@mirrored_inferer if @displayable_configs#average_mirrored else @plain_inferer"
_SIDE = re.compile(r"\b(left|right|(l|r|lt|rt)\b)", re.IGNORECASE)
# ends of words: kidneyLeft, LKidney, lung-l
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")
_SIDES = (("left", "right"), ("lt", "rt"), ("l", "r"))


def flip_ways(config: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Return the axes of [X, Y] that are flipped, for each image whose logits are averaged; the image itself first."""
    flips = config.get("flips", [])
    mirrored = config.get("displayable_configs", {}).get("average_mirrored", False)
    x = mirrored if isinstance(mirrored, bool) else "x" in flips
    return [along_x + along_y for along_x in ([(), (0,)] if x else [()]) for along_y in
            ([(), (1,)] if "y" in flips else [()])]  # fmt: skip


def check_flips(flips: Sequence[str], labels: Mapping[Any, str]) -> None:
    """Refuse axes that are none, and to flip x where a structure's name says a side, or two names differ by one.

    Args:
        flips: axes of which the logits of mirrored images are averaged.
        labels: class index -> name.

    Raises:
        TskdError: naming the axes or the structures.
    """
    if unknown := [axis for axis in flips if axis not in AXES]:
        raise TskdError(f"--flips: expected some of {', '.join(AXES)}, found {', '.join(map(str, unknown))}.")
    if "x" in flips and (sided := _sided(list(labels.values()))):
        raise TskdError(
            f"--flips x: expected structures of no side, found {', '.join(sided)}, which would be averaged with the "
            "other side. Leave x out."
        )


def _sided(names: Sequence[str]) -> list[str]:
    """Return the names that say a side, and those that begin or end with one where the rest is another's, too."""
    sided = {name for name in names if _SIDE.search(_WORDS.sub(" ", name))}
    by_letters = {re.sub(r"[\W_]+", "", name).lower(): name for name in names}
    for letters, name in by_letters.items():
        for left, right in _SIDES:
            partners = {re.sub(f"^{left}", right, letters), re.sub(f"{left}$", right, letters)} - {letters}
            for partner in partners & by_letters.keys():
                sided |= {name, by_letters[partner]}
    return [name for name in names if name in sided]


def known_inferer(config: Mapping[str, Any]) -> bool:
    """Return whether the inferer of an inference.json is one that `tskd ship` writes, for what the network sees."""
    inferer, plain = config.get("inferer"), config.get("plain_inferer")
    now = (CHOSEN, FLIPPED, FLIP_WAYS)
    if isinstance(inferer, Mapping):  # before there were options
        plain = inferer
    elif (inferer, config.get("mirrored_inferer")) != (_MIRRORED_CHOSEN, _MIRRORED) and now != (
        inferer, config.get("flipped_inferer"), config.get("flip_ways"),
    ):  # fmt: skip
        return False
    if "patch_size" in config:
        return plain == WINDOWS
    if config.get("neighbour_slices"):
        parts = (plain, config.get("slice_inferer"), config.get("stack_neighbours"))
        return parts == (WITH_NEIGHBOURS, SLICES, STACK)
    return plain in (SLICES, {"_target_": "SimpleInferer"})
