"""Images of 8 bits are kept in 8 bits, and come out as they went in."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor
from PIL import Image

from tskd.data.compact_dataset import BLOCK, Blocks, CompactCacheDataset, pack, unpack
from tskd.data.transforms import image_transforms


@pytest.fixture
def entries(tmp_path: Path) -> list[dict[str, str]]:
    """Two pictures with every grey value, and labels."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = []
    for k in range(2):
        entry = {key: str(tmp_path / f"{key}{k}.png") for key in ("image", "label")}
        Image.fromarray(np.roll(pixels, k)).save(entry["image"])
        Image.fromarray(pixels % 3).save(entry["label"])
        result.append({**entry, "case": str(k)})
    return result


@pytest.mark.parametrize("cache_rate", [1.0, 0.5])
@pytest.mark.parametrize(("size", "kept"), [(16, torch.uint8), (8, torch.float32)])
def test_items_are_those_of_a_plain_data_set_in_less_memory(entries, size, kept, cache_rate):
    transform = image_transforms(["image", "label"], size)
    data = CompactCacheDataset(entries, transform, cache_rate=cache_rate, progress=False)
    for _ in range(2):
        for k in range(len(entries)):
            item, expected = data[k], Dataset(entries, transform)[k]
            assert item["image"].dtype == torch.float32
            assert all(torch.equal(item[key], expected[key]) for key in ("image", "label"))
    assert data._cache[0]["image"].dtype == kept  # resized pixels are no multiples of 1/255 any more


@pytest.mark.parametrize(
    "image",
    [
        torch.tensor([0.0, 0.5]),
        torch.tensor([0.0, 2.0]),
        torch.tensor([float("nan")]),
        torch.tensor([1.0], dtype=torch.float64),
        MetaTensor(torch.tensor([1.0])),
    ],
)
def test_what_would_lose_something_stays_as_it_is(image):
    assert pack({"image": image})["image"] is image
    assert unpack({"image": image})["image"] is image


def test_blocks_hold_equal_tensors_side_by_side():
    blocks, values = Blocks(), [torch.full((2, 3), k) for k in range(BLOCK + 1)]
    kept = [blocks.keep(value) for value in values]
    assert all(torch.equal(one, value) for one, value in zip(kept, values, strict=True))
    assert len({one.untyped_storage().data_ptr() for one in kept}) == 2
    assert blocks.keep("text") == "text"
    assert blocks.keep(values[0].float()).dtype == torch.float32
    again = copy.deepcopy(blocks)  # asks for its state as another process does: the lock has none
    assert torch.equal(again.keep(values[1]), values[1])


def test_every_grey_value_is_exact():
    grey = torch.arange(256, dtype=torch.uint8)
    item = pack({"image": grey.float() / 255, "case": "a"})
    assert item["image"].dtype == torch.uint8
    assert torch.equal(unpack(item)["image"], grey.float() / 255)
