"""Identify a network's architecture by name and hash."""

import hashlib

from torch import nn


def architecture(network: nn.Module) -> str:
    """Return the name and a short hash of all layers with their settings, as "UNETR 1f6c2d9a03be"; no weights."""
    return f"{type(network).__name__} {hashlib.sha256(repr(network).encode()).hexdigest()[:12]}"
