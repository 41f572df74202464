"""A small student of the default kind."""

import pytest
import torch
from monai.networks.nets import UNETR


@pytest.fixture
def student() -> UNETR:
    """UNETR for 2 x 3 patches, with the default's number of blocks."""
    torch.manual_seed(0)
    return UNETR(1, 3, (32, 48), feature_size=4, hidden_size=24, mlp_dim=32, num_heads=3, spatial_dims=2)
