"""A virtual cohort, a network too small to draw anything, and a training schedule."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch.utils.data import DataLoader

from tskd.data.phantom.cohort import prepare_phantom
from tskd.synthesis import DiffusionUNet, SeededSampler, SyntheticFolder, WarpedLabels, folder_settings


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dataset.json of 16 virtual patients, 12 of them for training (read only)."""
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    return prepare_phantom(folder, num_patients=16, image_size=64, num_slices=6, num_validation=2, num_test=2)


def _network(size: int | tuple[int, int] = 16, channels: int = 1, amp_dtype: str | None = None) -> DiffusionUNet:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    return DiffusionUNet(unet, amp_dtype).eval()


@pytest.fixture
def make_network() -> Callable[..., DiffusionUNet]:
    """Builds the same small network each time: (size, channels, amp_dtype)."""
    return _network


@pytest.fixture
def network() -> DiffusionUNet:
    """A network for one channel, 16 x 16."""
    return _network()


@pytest.fixture(params=["epsilon", "v_prediction"])
def prediction_type(request: pytest.FixtureRequest) -> str:
    """What the network predicts."""
    return request.param


@pytest.fixture(params=["squaredcos_cap_v2", "linear"])
def scheduler(request: pytest.FixtureRequest, prediction_type: str) -> DDPMScheduler:
    """The training schedule, for both kinds of prediction and of betas."""
    return DDPMScheduler(1000, beta_schedule=request.param, prediction_type=prediction_type)


@pytest.fixture
def fill() -> Callable[..., SyntheticFolder]:
    """Draws images into a folder as the bundle's inference.json does: (path, network, schedule, num_images, ...)."""

    def fill(
        path: Path,
        network: DiffusionUNet,
        schedule: DDPMScheduler,
        num_images: int,
        model: str = "weights",
        sampler: str = "dpmsolver++",
        steps: int = 2,
        seed: int = 0,
        batch_size: int = 8,
        labels: WarpedLabels | None = None,
        **share: int,
    ) -> SyntheticFolder:
        draw = SeededSampler(schedule, sampler, steps, seed, labels=labels)
        folder = SyntheticFolder(path, num_images, folder_settings(model, network, "cpu", draw), labels=labels, **share)
        for numbers in DataLoader(folder.pending(), batch_size):
            folder.write(numbers.tolist(), draw(numbers, network))
        return folder

    return fill


@pytest.fixture(params=[("squaredcos_cap_v2", "epsilon"), ("linear", "v_prediction")], ids=lambda pair: "-".join(pair))
def either_scheduler(request: pytest.FixtureRequest) -> DDPMScheduler:
    """Two of the four schedules of `scheduler`, which have every kind of betas and of prediction between them."""
    betas, prediction = request.param
    return DDPMScheduler(1000, beta_schedule=betas, prediction_type=prediction)
