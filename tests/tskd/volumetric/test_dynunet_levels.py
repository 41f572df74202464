"""Kernels and strides by nnU-Net's rule, and the distance of slices from the validation volumes' headers."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet

from tskd.data import write
from tskd.errors import TskdError
from tskd.volumetric import LogitsNetwork, anisotropy, dynunet_levels


def test_isotropic_voxels_are_halved_along_every_axis() -> None:
    levels = dynunet_levels([64, 64, 64], 1.0)
    assert levels["kernels"] == [[3, 3, 3]] * 5
    assert levels["strides"] == [[1, 1, 1], *[[2, 2, 2]] * 4]


def test_thick_slices_are_left_alone_until_the_plane_is_as_coarse() -> None:
    levels = dynunet_levels([128, 128, 8], 3.1)
    assert levels["kernels"] == [[3, 3, 1], *[[3, 3, 3]] * 4]  # also when few slices are left
    assert levels["strides"] == [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 1], [2, 2, 1]]
    assert dynunet_levels([64, 64, 16], 8.0)["strides"][:3] == [[1, 1, 1], [2, 2, 1], [2, 2, 1]]


@pytest.mark.parametrize(("patch", "distance"), [([32, 32, 8], 3.1), ([16, 16, 16], 1.0), ([32, 32, 5], 6.0)])
def test_monais_network_takes_them(patch: list[int], distance: float) -> None:
    levels = dynunet_levels(patch, distance)
    strides = levels["strides"]
    filters = [2] * len(strides)
    network = DynUNet(3, 1, 3, levels["kernels"], strides, strides[1:], filters=filters, norm_name="batch").eval()
    assert LogitsNetwork(network)(torch.zeros(1, 1, *patch))["logits"].shape == (1, 3, *patch)


@pytest.mark.parametrize(("patch", "distance"), [([8, 8, 8], 1.0), ([34, 34, 8], 1.0), ([32, 32], 1.0), ([32] * 3, 0)])
def test_a_patch_that_is_none_is_refused(patch: list[int], distance: float) -> None:
    with pytest.raises(TskdError, match="patch_size"):
        dynunet_levels(patch, distance)


def data_set(folder: Path, validation: list[str]) -> Path:
    listed = [{"image": name, "label": name, "group": name, "case": name} for name in validation]
    labels = {"0": "background", "1": "organ"}
    content = {"name": "toy", "modality": "MR", "channels": 1, "labels": labels, "training": [], "test": []}
    write(folder / "dataset.json", {**content, "validation": listed})
    return folder / "dataset.json"


def test_the_distance_is_that_of_the_resized_slices_whatever_the_order_of_axes(tmp_path: Path) -> None:
    """40 x 40 pixels of 2 mm, resized to 20: pixels of 4 mm, and slices of 6 mm."""
    straight = nib.Nifti1Image(np.zeros((40, 40, 3), np.float32), np.diag([-2, -2, 6, 1]))
    turned = nib.Nifti1Image(
        np.zeros((3, 40, 40), np.float32), np.array([[0, 2, 0, 0], [0, 0, 2, 0], [6, 0, 0, 0], [0, 0, 0, 1]])
    )
    nib.save(straight, tmp_path / "a.nii.gz")
    nib.save(turned, tmp_path / "b.nii")
    for names in (["a.nii.gz"], ["b.nii"]):
        assert anisotropy(data_set(tmp_path, names), 20) == 1.5


def test_images_have_no_distance(tmp_path: Path) -> None:
    with pytest.raises(TskdError, match=r"expected volumes .* for validation"):
        anisotropy(data_set(tmp_path, ["a.png"]), 20)
