"""Load ImageNet weights into the EfficientNet encoder of MONAI's FlexibleUNet, every key accounted for."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.error import URLError

import torch
from monai.networks.nets import FlexibleUNet
from monai.networks.nets.efficientnet import url_map
from torch import Tensor, nn

from tskd.errors import TskdError
from tskd.networks.pixel_scale import IMAGENET
from tskd.networks.weight_store import find_weights
from tskd.networks.weights import read_checkpoint
from tskd.state import load_state

STEM, NORM = "_conv_stem.weight", "_bn0.running_mean"


def load_flexible_encoder(
    network: nn.Module, weights: str | Path = "random", init_weights: str | Path | None = None
) -> nn.Module:
    """Fill the encoder, in place, with ImageNet's weights in EfficientNet-PyTorch's layout, and return the network.

    MONAI's own `pretrained=True` leaves out what has another shape without a word, such as the first convolution of a
    grey image, and a bundle would ask the network for them again wherever it is loaded. Here images in [0, 1] are
    normalised by the first convolution and its batch norm, whose weights are changed for it (exactly but for the
    image's border); with one channel its weights are summed over the colours.

    Args:
        network: FlexibleUNet with 1 or 3 channels and an EfficientNet.
        weights: "random" to leave the encoder as it is; "imagenet" for the file that MONAI names for the backbone,
            downloaded once to torch's cache; or such a file.
        init_weights: weights of the whole network that replace these afterwards: with them, nothing is read here.

    Raises:
        TskdError: another network, no such file, no connection, or a key that is missing, unexpected or misshapen.
    """
    if weights == "random" or init_weights is not None:
        return network
    if not isinstance(network, FlexibleUNet) or network.backbone not in url_map:
        kind = getattr(network, "backbone", type(network).__name__)
        raise TskdError(f"encoder_weights: expected a FlexibleUNet with one of {', '.join(url_map)}, found {kind}")
    state = (
        _downloaded(network.backbone) if weights == "imagenet" else read_checkpoint(find_weights(weights, "encoder"))
    )
    target = network.encoder.state_dict()
    names = {re.sub(r"_blocks\.\d+\.", "_blocks.", key): key for key in target}  # MONAI numbers the stages, too
    counters = {key: value for key, value in target.items() if key.endswith("num_batches_tracked")}
    state = counters | {names.get(key, key): value for key, value in state.items()}
    if (stem := state.get(STEM)) is not None and stem.shape[1] == 3 and NORM in state:
        state |= {STEM: _of_unit_scale(stem, target[STEM].shape[1]), NORM: state[NORM] + _shift(stem)}
    load_state(network.encoder, state, weights)
    return network


def _of_unit_scale(stem: Tensor, channels: int) -> Tensor:
    """Return weights O x 3 x k x k for images in [0, 1]: of three colours, or of grey."""
    scaled = stem / torch.tensor(IMAGENET.std).view(1, 3, 1, 1)
    return scaled.sum(1, keepdim=True) if channels == 1 else scaled


def _shift(stem: Tensor) -> Tensor:
    """Return what the first convolution gives too much, a number for each of its O channels: the mean's response."""
    return (stem.sum((2, 3)) * torch.tensor(IMAGENET.mean) / torch.tensor(IMAGENET.std)).sum(1)


def _downloaded(backbone: str) -> dict[str, Tensor]:
    url = url_map[backbone]
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise TskdError(
            f"encoder_weights: expected to download {url}, found: {error}. Download it elsewhere, and put it into "
            f"{folder}, or give its path"
        ) from error
