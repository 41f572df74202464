"""The inferers that `tskd ship` writes into inference.json, as expressions of MONAI and PyTorch alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
MIRRORED = (  # left to right
    "$(lambda one: lambda inputs, network, *more, **named: (one(inputs, network, *more, **named) + "
    "one(inputs.flip(2), network, *more, **named).flip(2)) / 2)(@plain_inferer)"
)
CHOSEN = "$@mirrored_inferer if @displayable_configs#average_mirrored else @plain_inferer"


def known_inferer(config: Mapping[str, Any]) -> bool:
    """Return whether the inferer of an inference.json is one that `tskd ship` writes, for what the network sees."""
    inferer, plain = config.get("inferer"), config.get("plain_inferer")
    if isinstance(inferer, Mapping):  # before there were options
        plain = inferer
    elif inferer != CHOSEN or config.get("mirrored_inferer") != MIRRORED:
        return False
    if "patch_size" in config:
        return plain == WINDOWS
    if config.get("neighbour_slices"):
        parts = (plain, config.get("slice_inferer"), config.get("stack_neighbours"))
        return parts == (WITH_NEIGHBOURS, SLICES, STACK)
    return plain in (SLICES, {"_target_": "SimpleInferer"})
