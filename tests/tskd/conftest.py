"""A small SAM after a few steps of LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tskd.networks import PromptFreeSam


@pytest.fixture(scope="session")
def x() -> torch.Tensor:
    """Two grey images of 64 x 64 pixels."""
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session", params=["sam_vit_b", "mobile_sam"])
def tuned(request: pytest.FixtureRequest, x: torch.Tensor) -> tuple[str, PromptFreeSam]:
    """Name of the foundation model, and a network trained with LoRA (read only)."""
    from tests.tskd.small_sam import fresh, trained
    from tskd.lora import prepare_fine_tuning  # slow to import, and most tests here do without

    return request.param, trained(prepare_fine_tuning(fresh(request.param)), x)  # type: ignore[return-value]
