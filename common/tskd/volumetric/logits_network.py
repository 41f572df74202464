"""A 3-D student in the form that the distillation step calls it."""

from torch import Tensor, nn


class LogitsNetwork(nn.Module):
    """Segmentation network that answers by name, as `TappedNetwork` does, without features of its inside.

    Args:
        network: from B x C x X x Y x Z to logits B x N x X x Y x Z.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return `logits`."""
        return {"logits": self.network(x)}
