"""A small virtual cohort and a runner for bundle configs."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow
from monai.networks.nets import UNETR

from tskd.data import prepare_phantom
from tskd.errors import TskdError

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
# of the student's default network, where its size does not matter: 1/19 of the weights
SMALL = {"network_def__hidden_size": 48, "network_def__mlp_dim": 96, "network_def__feature_size": 4}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the dataset.json of six virtual patients: three for training, one for validation, two for test."""
    folder = tmp_path_factory.mktemp("cohort")
    prepare_phantom(folder, num_patients=6, seed=1, image_size=64, num_slices=6, num_validation=1, num_test=2)
    return folder


def small_student() -> UNETR:
    """The network of `SMALL`, for five classes in grey images of 64 x 64 pixels."""
    return UNETR(1, 5, (64, 64), spatial_dims=2, hidden_size=48, mlp_dim=96, num_heads=3, feature_size=4)


def user_error(error: BaseException | None) -> str:
    """Message of the `TskdError` behind MONAI's own errors."""
    while error is not None and not isinstance(error, TskdError):
        error = error.__cause__ or error.__context__
    assert error is not None
    return str(error)


@pytest.fixture
def run_bundle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ConfigWorkflow]:
    """`run_configs`, for one test."""
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    return run_configs


def run_configs(bundle: str, *configs: str, workflow_type: str = "train", **overrides: Any) -> ConfigWorkflow:
    """Run the configs of a bundle in this process; keys are overridden by keyword, `#` written as `__`."""
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLES / bundle / "configs" / f"{name}.json") for name in configs],
        workflow_type=workflow_type,
        logging_file=False,
        bundle_root=str(BUNDLES / bundle),
        **{key.replace("__", "#"): value for key, value in overrides.items()},
    )
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    return workflow
