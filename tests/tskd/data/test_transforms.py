"""The chains of MONAI's transforms that training and validation read their images with."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import CopyItemsd
from PIL import Image

from tskd.data.transforms import image_transforms, mask_transforms, volume_transforms
from tskd.errors import TskdError

BOTH = ["image", "label"]


@pytest.fixture
def picture(tmp_path: Path) -> dict[str, str]:
    """An image of 40 x 24 pixels with a bright block, and the block as its label."""
    block = np.zeros((24, 40), np.uint8)
    block[8:16, 10:30] = 1
    for key, factor in (("image", 255), ("label", 1)):
        Image.fromarray(block * factor).save(tmp_path / f"{key}.png")
    return {key: str(tmp_path / f"{key}.png") for key in BOTH}


def test_images_and_labels_become_squares_of_plain_tensors(picture):
    item = image_transforms(BOTH, 8)(picture)
    assert {key: (tuple(item[key].shape), item[key].dtype) for key in BOTH} == {
        "image": ((1, 8, 8), torch.float32), "label": ((1, 8, 8), torch.uint8),
    }  # fmt: skip
    assert 0 <= item["image"].min() < item["image"].max() <= 1 + 1e-6
    assert set(item["label"].unique().tolist()) == {0, 1}
    assert not any(hasattr(item[key], "meta") for key in BOTH)


def test_a_validation_keeps_the_labels_size(picture):
    item = image_transforms(BOTH, 8, resize_label=False, track_meta=True)(picture)
    assert item["image"].shape == (1, 8, 8)
    assert item["label"].shape == (1, 40, 24)


def test_a_label_may_be_missing_where_that_is_said(picture):
    del picture["label"]
    assert image_transforms(BOTH, 8, allow_missing_keys=True)(picture).keys() == {"image"}
    with pytest.raises(RuntimeError, match="applying transform"):
        image_transforms(BOTH, 8)(picture)


def test_images_have_no_neighbours():
    with pytest.raises(TskdError, match=r"no 1 slices on each side\. Leave out neighbours\.json"):
        image_transforms(["image"], 8, neighbours=1)


def test_further_transforms_are_of_the_same_chain(picture):
    """A data set caches what the chain does, up to the first random transform of its own list."""
    last = CopyItemsd("image", names="copy")
    assert image_transforms(["image"], 8, then=[last]).transforms[-1] is last


@pytest.mark.parametrize("largest", [(), (1,)])
def test_a_mask_comes_back_on_the_grid_of_its_volume(largest, tmp_path):
    volume = np.random.default_rng(0).normal(size=(30, 20, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([1, 1, 2, 1])), tmp_path / "volume.nii.gz")
    both = {key: str(tmp_path / "volume.nii.gz") for key in BOTH}
    chain = volume_transforms(16, lambda item: item)
    item = chain(both)
    assert item["image"].shape == (1, 16, 16, 3)
    assert 0 <= item["image"].min() <= item["image"].max() <= 1 + 1e-6
    item["pred"] = torch.stack([torch.zeros(16, 16, 3), torch.full((16, 16, 3), -1.0)])
    item["pred"][1, 4:8, 4:8, 1] = item["pred"][1, 12:, 12:, 1] = 9
    item["pred"][1, 4:12, 4:8, 1] = 9
    mask = mask_transforms(chain, largest, keep_probabilities=True)(item)
    assert mask["pred"].shape == (1, 30, 20, 3)
    assert mask["prob"].shape == (2, 30, 20, 3)
    assert len(torch.unique(mask["pred"][..., 1])) == 2
    corner = mask["pred"][0, :4, :4, 1]  # LPS turns the axes of the file
    assert bool(corner.any()) == (not largest)
