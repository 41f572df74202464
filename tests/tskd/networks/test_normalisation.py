"""A normalisation with one value a channel is found before a training begins, and the network stays as it was."""

import pytest
import torch
from torch import nn

from tskd.errors import TskdError
from tskd.networks import check_normalisation


def network(norm: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.Dropout(0.5), nn.AvgPool2d(8), norm(4)).eval()


@pytest.mark.parametrize(
    ("norm", "batch_size", "image_size", "refused"),
    [
        (nn.BatchNorm2d, 1, 8, True),
        (nn.BatchNorm2d, 2, 8, False),
        (nn.BatchNorm2d, 1, 16, False),
        (nn.InstanceNorm2d, 1, 8, True),
        (nn.InstanceNorm2d, 4, 8, True),
        (nn.InstanceNorm2d, 4, 16, False),
        (nn.Identity, 1, 8, False),
    ],
)
def test_one_value_a_channel_is_refused(norm: type[nn.Module], batch_size: int, image_size: int, refused: bool) -> None:
    model = network(norm if norm is not nn.Identity else lambda _: nn.Identity())  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    if refused:
        with pytest.raises(TskdError, match="batch_size, image_size: expected more than one value a channel"):
            check_normalisation(model, batch_size, image_size)
    else:
        check_normalisation(model, batch_size, image_size)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_a_network_of_other_inputs_is_left_to_its_training() -> None:
    check_normalisation(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 1, 8, in_channels=1)
