"""Graphics cards by name: memory and speed as their makers state them."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from tskd.errors import TskdError


class Card(NamedTuple):
    """Memory in GiB, and dense 16-bit matrix products in 10^12 operations a second (a multiply-add is two)."""

    memory: float
    tflops: float


CARDS = {
    "T4": Card(15, 65),
    "RTX 3060": Card(12, 51),
    "RTX 3090": Card(24, 71),
    "RTX 4090": Card(24, 165),
    "L4": Card(22, 121),
    "A10": Card(22, 125),
    "A100 40GB": Card(40, 312),
    "A100 80GB": Card(80, 312),
    "H100": Card(80, 989),
    "H200": Card(141, 989),
}
UTILISATION = 0.3  # share of the stated speed that trainings of this size reach; assumed
FLOOR = 0.03  # seconds below which no training step comes, whatever the card: loading, launching, logging; assumed


def card_named(name: str) -> Card:
    """Return a card by its name.

    Raises:
        TskdError: a card that is not in the table.
    """
    known = {key.casefold().replace(" ", ""): card for key, card in CARDS.items()}
    card = known.get(name.casefold().replace(" ", "").replace("_", ""))
    if card is None:
        close = difflib.get_close_matches(name, CARDS, n=3, cutoff=0.3) or list(CARDS)
        raise TskdError(f"card: expected one of {', '.join(CARDS)}, found {name!r}; close names: {', '.join(close)}")
    return card


def step_seconds(gmac: float, card: Card) -> float:
    """Return the seconds of a training step of so many 10^9 multiply-adds."""
    return max(2 * gmac / (1000 * card.tflops * UTILISATION), FLOOR)
