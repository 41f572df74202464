"""Apply a segmentation loss at the resolution of the logits."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class AtLogits(nn.Module):
    """Segmentation loss at the logits' grid: the label is downsampled by nearest neighbour, so 255 stays 255.

    SAMed (arXiv 2304.13785) trains on the mask decoder's low-resolution logits like this.

    Args:
        loss: takes logits B x N x h x w and label B x 1 x h x w.

    Shape:
        logits B x N x h x w, label B x 1 x H x W; returns what `loss` returns.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss."""
        small = functional.interpolate(label.float(), logits.shape[2:], mode="nearest-exact")
        return self.loss(logits, small.to(label.dtype))
