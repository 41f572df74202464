"""Use the network of any MONAI bundle as a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn
from torch.nn import functional

from tskd.errors import TskdError
from tskd.networks.bundle_imports import bundle_imports
from tskd.networks.weights import read_checkpoint
from tskd.state import load_state

CONFIGS = ("inference", "evaluate", "train")
_REFUSALS = (RuntimeError, ValueError, AssertionError)  # what a network of volumes or of another size raises


class BundleTeacher(nn.Module):
    """2-D segmentation network from a bundle's `network_def` and weights, to write soft labels with.

    A bundle's config and its own packages (`scripts`) are code: use only bundles that you trust. The state dict is that
    of the bundle's network, so that files of its weights can be loaded into the teacher.

    Args:
        bundle: the bundle's folder; `network_def` is taken from configs/inference, evaluate or train (.json, .yaml).
        num_classes: channels that its output must have, the background being one of them.
        in_channels: channels of the images.
        image_size: side of the images in pixels, a multiple of `pooling`.
        weights: file of its weights; None for the bundle's models/model.pt.
        pooling: side in pixels of the squares whose mean logits are stored; 1 keeps thin structures, 4 is a SAM's.

    Attributes:
        name: the network's class.
        any_size: True; whether the network takes images of other sizes is seen when it is given one.
        stride: what other sizes should be a multiple of: the largest power of two up to 32 that image_size is one of.

    Raises:
        TskdError: no bundle, no `network_def`, weights that do not fit, or another image size or kind of output; on a
            call, for images of another size that the network does not take.
    """

    any_size = True

    def __init__(
        self,
        bundle: str | Path | None,
        num_classes: int,
        in_channels: int,
        image_size: int,
        weights: str | Path | None = None,
        pooling: int = 1,
    ) -> None:
        super().__init__()
        if bundle is None or not (Path(bundle) / "configs").is_dir():
            raise TskdError(f"teacher_bundle: expected the folder of a MONAI bundle, with configs/, found {bundle}")
        if pooling < 1 or image_size % pooling:
            raise TskdError(
                f"image_size: expected a multiple of pooling = {pooling}, the side of the squares whose mean logits "
                f"are stored, found {image_size}. Change one of them"
            )
        self.pooling = pooling
        self.image_size = image_size
        self.stride = next(stride for stride in (32, 16, 8, 4, 2, 1) if image_size % stride == 0)
        example, expected = torch.zeros(1, in_channels, image_size, image_size), (1, num_classes, *[image_size] * 2)
        with bundle_imports(Path(bundle)), torch.no_grad():
            self.network = load_checkpoint(_network(Path(bundle)), weights or Path(bundle, "models", "model.pt")).eval()
            self.name = type(self.network).__name__
            try:
                result: object = tuple(self(example).shape)
            except _REFUSALS as error:
                result = error
        if result != expected:
            raise TskdError(
                f"teacher_bundle: expected a {self.name} from images {tuple(example.shape)} to logits {expected}, "
                f"found {result}. Set image_size, in_channels and num_classes as {bundle} has them."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the size of the images; of several outputs the first."""
        if x.shape[2:] == (self.image_size, self.image_size):
            return _first(self.network(x))
        try:
            output = _first(self.network(x))
            problem = f"logits {tuple(output.shape)}" if output.shape[2:] != x.shape[2:] else None
        except _REFUSALS as error:
            problem = str(error)
        if problem:
            raise TskdError(
                f"teacher_bundle: expected {self.name} to take images of {x.shape[2]} x {x.shape[3]}, found {problem}. "
                "Leave the scales of tta out, or choose others"
            )
        return output

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return `logits_low`: mean logits of every `pooling` x `pooling` pixels, B x C x H/pooling x W/pooling."""
        return {"logits_low": functional.avg_pool2d(self(x), self.pooling)}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return that of the bundle's network."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load into the bundle's network."""
        return self.network.load_state_dict(*args, **kwargs)


def load_checkpoint(network: nn.Module, path: str | Path) -> nn.Module:
    """Call `tskd.state.load_weights`, also on a file that has the state dict under "model" or "state_dict".

    Raises:
        TskdError: when the file is missing or damaged, or naming each missing, unexpected or differently shaped entry.
    """
    return load_state(network, read_checkpoint(path), path)


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _network(bundle: Path) -> nn.Module:
    for name in CONFIGS:
        for file in sorted((bundle / "configs").glob(f"{name}.*")):
            parser = ConfigParser()
            parser.read_config(file)
            if "network_def" in parser:
                parser["bundle_root"] = str(bundle)
                return parser.get_parsed_content("network_def")
    raise TskdError(f"{bundle / 'configs'}: expected network_def in {', '.join(CONFIGS)} (.json, .yaml), found none")
