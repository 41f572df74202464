"""The network of any MONAI bundle as a teacher."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn
from torch.nn import functional

from common.errors import TskdError
from common.state import load_weights

CONFIGS = ("inference", "evaluate", "train")
STRIDE = 4  # image pixels a pixel of the stored logits, as SAM's


class BundleTeacher(nn.Module):
    """A 2-D segmentation network from a bundle's `network_def` and models/model.pt, to write soft labels with.

    A bundle's config is code: use only bundles that you trust.

    Args:
        bundle: the bundle's folder; `network_def` is taken from configs/inference, evaluate or train (.json, .yaml).
        num_classes: channels that its output must have, the background being one of them.
        in_channels: channels of the images.
        image_size: side of the images in pixels, a multiple of 4.

    Raises:
        TskdError: no bundle, no `network_def`, weights that do not fit, or another kind of output.
    """

    def __init__(self, bundle: str | Path | None, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        if bundle is None or not (Path(bundle) / "configs").is_dir():
            raise TskdError(f"teacher_bundle: expected the folder of a MONAI bundle, with configs/, found {bundle}")
        self.network = load_weights(_network(Path(bundle)), Path(bundle) / "models" / "model.pt").eval()
        self.name = type(self.network).__name__
        example, expected = torch.zeros(1, in_channels, image_size, image_size), (1, num_classes, *[image_size] * 2)
        with torch.no_grad():
            try:
                found: object = tuple(self(example).shape)
            except (RuntimeError, ValueError, AssertionError) as error:  # what a network of volumes raises
                found = error
        if found != expected:
            raise TskdError(
                f"teacher_bundle: expected a {self.name} from images {tuple(example.shape)} to logits {expected}, "
                f"found {found}. Set image_size, in_channels and num_classes as {bundle} has them."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the size of the images; of several outputs the first."""
        output = self.network(x)
        return output if isinstance(output, Tensor) else output[0]

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """`logits_low`: mean logits of every 4 x 4 pixels, B x C x H/4 x W/4."""
        return {"logits_low": functional.avg_pool2d(self(x), STRIDE)}


def _network(bundle: Path) -> nn.Module:
    for name in CONFIGS:
        for file in sorted((bundle / "configs").glob(f"{name}.*")):
            parser = ConfigParser()
            parser.read_config(file)
            if "network_def" in parser:
                parser["bundle_root"] = str(bundle)
                return parser.get_parsed_content("network_def")
    raise TskdError(f"{bundle / 'configs'}: expected network_def in {', '.join(CONFIGS)} (.json, .yaml), found none")
