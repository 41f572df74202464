"""Neighbouring slices as channels: from files as from a volume."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tskd.data.datalist import entries, write
from tskd.data.io.slices import write_slices
from tskd.data.neighbour_slices import NeighbourChannels, NeighbourSlicesd
from tskd.data.transforms import image_transforms, volume_transforms
from tskd.errors import TskdError

LABELS = {"0": "background", "1": "organ"}


@pytest.fixture
def volume() -> np.ndarray:
    """X x Y x Z = 6 x 5 x 4 in [0, 1], exact in 8 bits, without any symmetry."""
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4)).astype(np.float32) / 255


@pytest.fixture
def dataset(volume: np.ndarray, tmp_path: Path) -> Path:
    """A dataset.json with the volume's slices, the third one without a label, and the volume as a file."""
    label = (volume > 0.5).astype(np.uint8)
    label[:, :, 2] = 255
    listed = write_slices(tmp_path, "p", volume, label)
    nib.save(nib.Nifti1Image(volume, np.diag([-1, -1, 3, 1])), tmp_path / "volume.nii.gz")
    data = {
        "name": "toy", "modality": "MR", "channels": 1, "labels": LABELS,
        "training": [entry for entry in reversed(listed) if "label" in entry],
        "unlabelled": [entry for entry in listed if "label" not in entry],
        "validation": [], "test": [],
    }  # fmt: skip
    write(tmp_path / "dataset.json", data)
    return tmp_path / "dataset.json"


@pytest.mark.parametrize("count", [1, 2])
def test_channels_are_the_neighbours_and_the_ends_are_repeated(volume: np.ndarray, count: int) -> None:
    stacked = NeighbourChannels(count)(torch.from_numpy(volume)[None])
    assert stacked.shape == (2 * count + 1, *volume.shape)
    for z in range(4):
        for channel, offset in enumerate(range(-count, count + 1)):
            expected = volume[:, :, min(max(z + offset, 0), 3)]
            np.testing.assert_array_equal(stacked[channel, :, :, z].numpy(), expected)


def test_several_channels_stay_together(volume: np.ndarray) -> None:
    two = torch.stack([torch.from_numpy(volume), torch.from_numpy(volume) + 1])
    assert torch.equal(NeighbourChannels(1)(two)[2:4], two)  # the middle


@pytest.mark.parametrize("count", [1, 2])
def test_a_training_slice_sees_what_the_same_slice_of_the_volume_does(dataset: Path, count: int) -> None:
    """Also the neighbours that have no label, and that are outside of the labelled budget."""
    first = [NeighbourSlicesd([dataset], count)]
    training = image_transforms(["image", "label"], 8, first=first)
    whole = volume_transforms(8, lambda item: item, count)
    file = str(dataset.parent / "volume.nii.gz")
    stacks = whole({"image": file, "label": file})["image"].as_tensor()
    listed = entries(dataset, "labelled")
    assert len(listed) == 3
    for entry in listed:
        item = training(entry)
        assert item["label"].shape == (1, 8, 8)
        z = int(entry["case"].rpartition("_")[2])
        torch.testing.assert_close(item["image"], stacks[..., z], atol=1e-6, rtol=0)
    one = training(entries(dataset, "labelled", 1)[0])
    assert one["image"].shape == (2 * count + 1, 8, 8)


def test_an_image_of_another_data_set_is_named(dataset: Path) -> None:
    with pytest.raises(TskdError, match=r"elsewhere_001\.png: expected a slice that .*neighbour_files"):
        NeighbourSlicesd([dataset])({"image": "elsewhere_001.png"})


def test_a_data_set_of_independent_images_is_refused(dataset: Path, tmp_path: Path) -> None:
    image = {"image": "a.png", "label": "b.png", "group": "1", "case": "ISIC_01"}
    data = {
        "name": "toy", "modality": "MR", "channels": 1, "labels": LABELS, "training": [image],
        "validation": [], "test": [],
    }  # fmt: skip
    write(tmp_path / "images.json", data)
    with pytest.raises(TskdError, match=r"images\.json: .*neighbour_slices needs.*one slice only.*Independent images"):
        NeighbourSlicesd([tmp_path / "images.json"])


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_number_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(TskdError, match="neighbour_slices: expected a whole number of at least 1"):
        NeighbourChannels(count)  # type: ignore[arg-type]
