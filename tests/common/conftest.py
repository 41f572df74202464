"""A small SAM after a few steps of LoRA."""

import pytest
import torch

from common.lora import prepare_fine_tuning
from common.networks import PromptFreeSam
from tests.common.small_sam import VFMS, fresh, trained


@pytest.fixture(scope="session")
def x() -> torch.Tensor:
    """Two grey images of 64 x 64 pixels."""
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session", params=VFMS)
def tuned(request: pytest.FixtureRequest, x: torch.Tensor) -> tuple[str, PromptFreeSam]:
    """Name of the foundation model, and a network trained with LoRA (read only)."""
    return request.param, trained(prepare_fine_tuning(fresh(request.param)), x)
