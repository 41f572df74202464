"""A shipped student with its network as ONNX, and virtual patients as a clinic has them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nibabel import affines, eulerangles

from tests.bundles.standalone import IMAGE_SIZE, ship, student
from tskd.data import virtual_patient
from tskd.data.phantom.dicom_writer import write_series


def _with_onnx(bundle: Path, in_channels: int) -> Path:
    torch.onnx.export(
        student(in_channels),
        (torch.rand(2, in_channels, IMAGE_SIZE, IMAGE_SIZE),),
        str(bundle / "models/model.onnx"),
        input_names=["image"],
        output_names=["pred"],
        dynamic_axes={"image": {0: "batch"}, "pred": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    return bundle


@pytest.fixture(scope="session")
def volumes_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes volumes; four classes; of the first two structures the largest component is kept."""
    return _with_onnx(ship(tmp_path_factory.mktemp("volumes"), "nii.gz"), 1)


@pytest.fixture(scope="session")
def pictures_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes RGB pictures."""
    return _with_onnx(ship(tmp_path_factory.mktemp("pictures"), "png", 3), 3)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """An oblique DICOM series whose files are not in the order of its slices: 46 x 40 x 5."""
    image, _, affine = virtual_patient(seed=5, number=0, image_size=52, num_slices=5)
    tilt = eulerangles.euler2mat(z=0.1, y=0.05, x=-0.08)
    tilted = affines.from_matvec(tilt, [3.0, -8.0, 11.0]) @ affine
    folder = tmp_path / "archive" / "P1" / "series"
    write_series(folder, np.ascontiguousarray(image[4:50, 6:46]), tilted, "P1", "one", file_order=[3, 0, 4, 1, 2])
    return folder
