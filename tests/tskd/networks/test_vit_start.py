"""A transformer's start: what it computes on standardised images, and tokens that differ."""

import pytest
import torch
from monai.networks.nets import UNETR, BasicUNet
from torch.nn import functional

from tskd.errors import TskdError
from tskd.networks import start_vit


def student(channels: int = 1) -> UNETR:
    torch.manual_seed(0)
    return UNETR(channels, 3, (64, 64), feature_size=8, hidden_size=48, mlp_dim=96, num_heads=3, spatial_dims=2)


@pytest.mark.parametrize(
    ("channels", "mean", "std"), [(1, 0.2, 0.1), (3, 0.5, 0.2), (3, [0.7, 0.5, 0.4], [0.1, 0.2, 0.3])]
)
@torch.no_grad()
def test_patches_are_those_of_standardised_images(channels, mean, std):
    image = torch.rand(2, channels, 64, 64)
    shape = (1, -1, 1, 1)
    standardised = (image - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    expected = student(channels).vit.patch_embedding.patch_embeddings(standardised)
    tokens = start_vit(student(channels), mean, std).vit.patch_embedding.patch_embeddings(image)
    torch.testing.assert_close(tokens, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_tokens_of_dark_images_differ():
    image = 0.2 + 0.05 * torch.randn(4, 1, 64, 64)

    def alike(network: UNETR) -> float:
        tokens = functional.normalize(network.vit(image)[0].flatten(0, 1), dim=1)
        return float((tokens @ tokens.T).mean())

    assert alike(student()) > 0.95  # mean cosine of two tokens
    assert alike(start_vit(student(), 0.2, 0.05)) < 0.7


def test_all_else_is_left_alone():
    parts = {f"vit.patch_embedding.{part}" for part in ("position_embeddings", "patch_embeddings.weight")}
    for network, mean, expected in (
        (BasicUNet(2, 1, 3), 0.2, set()),
        (student(), 0.2, {*parts, "vit.patch_embedding.patch_embeddings.bias"}),
        (student(), None, set()),
    ):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        after = start_vit(network, mean, 0.2).state_dict()
        assert {name for name, value in after.items() if not torch.equal(value, before[name])} == expected


@pytest.mark.parametrize(
    ("mean", "std", "message"), [(0.2, 0.0, r"above 0, found 0\.0"), ([0.1, 0.2], 0.2, "expected 1 or 3 numbers")]
)
def test_statistics_that_do_not_fit(mean, std, message):
    with pytest.raises(TskdError, match=message):
        start_vit(student(3), mean, std)
