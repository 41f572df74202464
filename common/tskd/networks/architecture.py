"""A network in a few words, to tell architectures apart."""

import hashlib

from torch import nn


def architecture(network: nn.Module) -> str:
    """Name and, as a short hash, all layers with their settings, for example "UNETR 1f6c2d9a03be"; no weights."""
    return f"{type(network).__name__} {hashlib.sha256(repr(network).encode()).hexdigest()[:12]}"
