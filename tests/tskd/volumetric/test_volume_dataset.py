"""Slices, labels and soft labels stacked to volumes in the right order, and patches of them."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from monai.transforms import RandCropByPosNegLabeld, RandSpatialCropd, SpatialPadd
from torch import Tensor

from tskd.errors import TskdError
from tskd.volumetric import StackSlices, VolumeDataset

KEYS = ["image", "label", "logits"]


def read(entry: Mapping[str, Any]) -> dict[str, Tensor]:
    """A slice that is its number everywhere, of a scan that is in the second channel of the logits."""
    number = int(entry["case"].rpartition("_")[2])
    item = {"image": torch.full((1, 8, 6), number / 100), "label": torch.full((1, 8, 6), number, dtype=torch.uint8)}
    logits = torch.stack([torch.full((4, 3), float(number)), torch.full((4, 3), float(ord(entry["group"])))])
    return {**item, "logits": logits.half()} if entry.get("soft_labels") else item


def entries(group: str, numbers: list[int], **more: str) -> list[dict[str, str]]:
    return [{"group": group, "case": f"{group}_{number:03d}", **more} for number in numbers]


def test_each_volume_is_stacked_by_slice_number_with_its_soft_labels() -> None:
    shuffled = entries("a", [12, 10, 9, 11], soft_labels="x") + entries("b", [1, 0], soft_labels="x")
    data = VolumeDataset(shuffled[:2] + shuffled[4:5] + shuffled[2:4] + shuffled[5:], read)
    assert len(data) == 2
    for volume, numbers, group in ((data[0], [9, 10, 11, 12], "a"), (data[1], [0, 1], "b")):
        depth = len(numbers)
        assert volume["image"].shape == (1, 8, 6, depth)
        assert volume["logits"].shape == (2, 8, 6, depth)  # at the image's size
        assert volume["logits"].dtype == torch.float16
        for z, number in enumerate(numbers):
            assert volume["label"][..., z].unique().tolist() == [number]
            assert volume["logits"][0, ..., z].unique().tolist() == [number]
            assert volume["logits"][1, ..., z].unique().tolist() == [ord(group)]
            torch.testing.assert_close(volume["image"][..., z], torch.full((1, 8, 6), number / 100))


def test_a_volume_whose_slices_are_labelled_in_part_is_refused() -> None:
    mixed = (
        entries("a", [0], part="labelled")
        + entries("b", [0, 1], part="labelled")
        + entries("a", [1], part="unlabelled")
    )
    with pytest.raises(TskdError, match=r"patient a in several parts.*whole_patients\.json"):
        VolumeDataset(mixed, read)
    assert [volume["part"] for volume in VolumeDataset(mixed[1:3], read).volumes] == ["labelled"]


def test_soft_labels_are_interpolated_in_the_plane_as_for_2d() -> None:
    logits = torch.randn(2, 3, 4, 5)  # Z x N x x x y

    def slice_of(entry: Mapping[str, int]) -> dict[str, Tensor]:
        return {"image": torch.zeros(1, 8, 10), "logits": logits[entry["z"]].half()}

    volume = StackSlices(slice_of)({"slices": [{"z": 0}, {"z": 1}]})
    for z in range(2):
        expected = torch.nn.functional.interpolate(logits[z : z + 1].half().float(), size=(8, 10), mode="bilinear")[0]
        torch.testing.assert_close(volume["logits"][..., z].float(), expected, atol=2e-3, rtol=2e-3)


def test_parts_are_those_of_volumes() -> None:
    data = VolumeDataset(entries("a", [0, 1], part="labelled") + entries("b", [0, 1], part="unlabelled"), read)
    assert data.volumes == [{"case": "a_000", "part": "labelled"}, {"case": "b_000", "part": "unlabelled"}]


def test_patches_follow_torchs_seed_alone_and_keep_keys_together() -> None:
    crop = [RandSpatialCropd(KEYS, roi_size=[4, 4, 2], random_size=False)]
    data = VolumeDataset(entries("a", list(range(20)), soft_labels="x"), read, crop)

    def draw() -> list[int]:
        torch.manual_seed(0)
        return [int(data[0]["label"][0, 0, 0, 0]) for _ in range(8)]

    first = draw()
    data[0]  # moves no state that the next draws depend on
    assert draw() == first
    assert len(set(first)) > 3
    patch = data[0]
    assert patch["image"].shape == (1, 4, 4, 2)
    assert torch.equal(patch["label"][0].float(), patch["logits"][0].as_tensor().float())


def test_a_short_volume_is_padded_by_its_last_slices_and_gives_a_list_of_patches() -> None:
    crop = [
        SpatialPadd(KEYS, spatial_size=[8, 6, 4], mode="edge", allow_missing_keys=True),
        RandCropByPosNegLabeld(KEYS, "label", [8, 6, 4], num_samples=1, allow_missing_keys=True),
    ]
    (patch,) = VolumeDataset(entries("a", [3, 4]), read, crop)[0]
    assert [patch["label"][..., z].unique().tolist() for z in range(4)] == [[3], [3], [4], [4]]


def test_independent_images_are_refused() -> None:
    with pytest.raises(TskdError, match=r"a 3-D student needs them.*one slice only"):
        VolumeDataset(entries("a", [0]) + entries("b", [0]), read)
