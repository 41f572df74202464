"""Shared fixtures."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)  # tiny tensors: a second thread costs more than it gives, on a busy machine far more


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real images and pretrained weights (not part of the project)."""
    folder = Path(os.environ.get("TSKD_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir() or not (folder / "weights").is_dir():
        pytest.skip(f"needs real images and weights in {folder} (set TSKD_SHARED to a folder with data/ and weights/)")
    return folder
