"""Images, a small teacher, and a function that writes its soft labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, ScaleIntensityRanged
from PIL import Image

from tskd.distillation import write_soft_labels
from tskd.networks import PromptFreeSam, build_sam

PREPROCESSING = Compose(
    [
        LoadImaged("image", reader="PILReader", image_only=True),
        EnsureChannelFirstd("image"),
        ScaleIntensityRanged("image", 0, 255, 0, 1),
        EnsureTyped("image", dtype=torch.float32, track_meta=False),
    ]
)


class Counting(torch.nn.Module):
    """Counts the images that the teacher sees; stops like a killed process after `limit` of them."""

    def __init__(self, teacher: torch.nn.Module, limit: int = 100) -> None:
        super().__init__()
        self.teacher, self.limit, self.count = teacher, limit, 0

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The teacher's own, as a model file has it."""
        return self.teacher.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.teacher.load_state_dict(*args, **kwargs)

    def forward_features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.count + len(x) > self.limit:
            raise KeyboardInterrupt
        self.count += len(x)
        return self.teacher.forward_features(x)


@pytest.fixture
def description() -> dict[str, int]:
    """The preprocessing as the manifest has it."""
    return {"image_size": 64, "in_channels": 1}


@pytest.fixture(scope="session")
def teacher() -> PromptFreeSam:
    torch.manual_seed(0)
    network = build_sam("mobile_sam", 3, 64).eval()
    assert isinstance(network, PromptFreeSam)
    return network


@pytest.fixture
def entries(tmp_path: Path) -> list[dict[str, str]]:
    """Five images, wider than high, as datalist entries."""
    rng = np.random.default_rng(0)
    result = []
    for number in range(5):
        path = tmp_path / f"image_{number}.png"
        Image.fromarray(rng.integers(0, 255, (64, 96), dtype=np.uint8)).save(path)
        result.append({"image": str(path), "group": "g", "case": f"case_{number}"})
    return result


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that stands for the teacher's weights: only its hash counts here."""
    (tmp_path / "model.pt").write_bytes(b"weights")
    return tmp_path / "model.pt"


@pytest.fixture
def write(teacher, entries, weights, description, tmp_path):
    """Writes soft labels of `entries` to tmp_path/soft; returns how many images the teacher has seen."""

    def function(limit: int = 100, **changes: Any) -> int:
        network = Counting(changes.pop("network", teacher), limit)
        options = {
            "entries": entries, "output_dir": tmp_path / "soft", "teacher": weights, "description": description,
            "preprocessing": PREPROCESSING, "batch_size": 2,
        }  # fmt: skip
        write_soft_labels(network, **{**options, **changes})
        return network.count

    return function
