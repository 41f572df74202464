"""Shared fixtures."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real images and pretrained weights (not part of the project)."""
    folder = Path(os.environ.get("TSKD_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir() or not (folder / "weights").is_dir():
        pytest.skip(f"needs real images and weights in {folder} (set TSKD_SHARED to a folder with data/ and weights/)")
    return folder
