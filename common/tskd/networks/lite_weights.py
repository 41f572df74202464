"""Load ImageNet weights into a U-Net's EfficientNet-Lite0 encoder, every key accounted for."""

from __future__ import annotations

from pathlib import Path

from tskd.errors import TskdError
from tskd.networks.lite_unet import LiteUNet, spread_stem
from tskd.networks.weight_store import find_weights, get_weights
from tskd.networks.weights import read_checkpoint
from tskd.state import load_state

HEAD = ("_conv_head.", "_bn1.", "_fc.")  # the classifier, which a segmentation has no use for
NAME = "efficientnet_lite0"
STEM = "_conv_stem.weight"  # the first convolution, whose channels may be a slice and its neighbours


def load_lite_encoder(
    network: LiteUNet, weights: str | Path | None = None, init_weights: str | Path | None = None
) -> LiteUNet:
    """Fill the encoder, in place, with weights in the layout of efficientnet-lite-pytorch, and return the network.

    Args:
        network: U-Net; its decoder and head stay as they are.
        weights: file of the encoder; None for those of ImageNet from the cache, else downloaded; "random" to leave the
            encoder as it is.
        init_weights: weights of the whole network that replace these afterwards: with them, nothing is read here.

    Raises:
        TskdError: another network, no such file, or a key that is missing, unexpected or of another shape.
    """
    if not isinstance(network, LiteUNet):
        raise TskdError(
            f"encoder_weights: expected a LiteUNet, found {type(network).__name__}; put lite_unet.json last, or leave "
            "it out"
        )
    if init_weights is not None or weights == "random":
        return network
    path = get_weights(NAME) if weights is None else find_weights(weights, NAME)
    state = {key: value for key, value in read_checkpoint(path).items() if not key.startswith(HEAD)}
    if (stem := state.get(STEM)) is not None and stem.shape[1:2] == (3,):
        state[STEM] = spread_stem(stem, network.channels)
    load_state(network.encoder, state, path)
    return network
