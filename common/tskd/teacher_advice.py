"""Which foundation model and image size fit a card: counted on the meta device, so that neither has to be there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from torch import nn

from tskd.errors import TskdError
from tskd.networks.encoders.build_encoder import side_multiple
from tskd.step_costs import GIB, StepCost, step_cost

VFMS = (
    "mobile_sam",
    "sam2_hiera_tiny",
    "sam_vit_b",
    "dinov3_base",
    "sam2_hiera_base_plus",
    "sam_vit_l",
    "dinov2_large",
)
SIZES = (512, 1024)
MARGIN = 0.8  # of the memory: the rest is for kernels, fragmentation and the driver


class Option(NamedTuple):
    """A foundation model at an image size, what a step of it costs, and how many images a step can hold."""

    vfm: str
    image_size: int
    cost: StepCost
    images: int


def card_memory(card: str | None, memory: float | None) -> tuple[str, float]:
    """Return the name and the GiB of a card: a named one, one of so much memory, or the one of this machine.

    Raises:
        TskdError: an unknown name, or nothing is said and there is no CUDA device.
    """
    from tskd.workflow.cards import card_named

    if card is not None:
        return card, memory or card_named(card).memory
    if memory is not None:
        return "a card", memory
    import torch

    if not torch.cuda.is_available():
        raise TskdError("card: expected a CUDA device, --card NAME or --memory-limit GIB, found none of them.")
    return torch.cuda.get_device_name(0), round(torch.cuda.mem_get_info(0)[1] / GIB, 1)


def options(
    memory: float, vfms: Sequence[str] = VFMS, sizes: Sequence[int] = SIZES, num_classes: int = 5, half: bool = True
) -> list[Option]:
    """Count a LoRA step (rank 4 on q and v) of each foundation model at each size.

    Args:
        memory: of the card, GiB.
        vfms: foundation models.
        sizes: image sizes; each is rounded to what the model takes.
        num_classes: classes with the background.
        half: activations in 16 bits, as under autocast; else single precision.
    """
    fitting = []
    for vfm in vfms:
        for size in sizes:
            side = round(size / side_multiple(vfm)) * side_multiple(vfm)
            cost = _cost(vfm, num_classes, side)
            free = MARGIN * memory * GIB - cost.memory(0, half)
            images = int(free // max(cost.memory(1, half) - cost.memory(0, half), 1))
            fitting.append(Option(vfm, side, cost, max(images, 0)))
    return fitting


@lru_cache
def _cost(vfm: str, num_classes: int, side: int) -> StepCost:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name of before
        return step_cost(partial(_teacher, vfm, num_classes, side), (1, side, side))


def advice(fitting: Sequence[Option], card: str, memory: float, batch_size: int = 8) -> str:
    """Return the options as a table, with what to choose below.

    Args:
        fitting: of `options`.
        card: its name.
        memory: of the card, GiB.
        batch_size: images of an update of the weights.
    """
    rows = [f"LoRA, rank 4, on {card} with {memory:g} GiB, of which {MARGIN:.0%} are used (counted, not measured)"]
    rows += [f"  {'vfm':<22}{'px':>6}{'million':>9}{'GMAC':>8}{'images a step':>15}  accumulation_steps"]
    for option in fitting:
        fits = max((n for n in range(1, batch_size + 1) if batch_size % n == 0 and n <= option.images), default=0)
        parts = str(batch_size // fits) if fits else "does not fit"
        rows.append(
            f"  {option.vfm:<22}{option.image_size:>6}{option.cost.parameters / 1e6:>9.0f}{option.cost.gmac:>8.0f}"
            f"{option.images:>15}  {parts}"
        )
    whole = [option for option in fitting if option.images >= batch_size]
    some = whole or [option for option in fitting if option.images]
    if not some:
        return "\n".join([*rows, "None fits: take vfm mobile_sam with image_size 256, or a card with more memory."])
    best = max(some, key=lambda option: option.cost.gmac)
    cheap = min(some, key=lambda option: option.cost.gmac)
    held = f"{batch_size} images" if whole else "an image"
    rows += [
        f"The largest that holds {held} a step: --vfm {best.vfm} --image_size {best.image_size}",
        f"The cheapest: --vfm {cheap.vfm} --image_size {cheap.image_size}",
        "Larger is not better by itself: the results of this project are MobileSAM's at 256 px.",
    ]
    return "\n".join(rows)


def _teacher(vfm: str, num_classes: int, image_size: int) -> nn.Module:
    from tskd.lora import prepare_fine_tuning
    from tskd.networks import build_sam

    return prepare_fine_tuning(build_sam(vfm, num_classes, image_size))
