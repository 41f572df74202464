"""Random views of a batch."""

import pytest
import torch
from monai.data import MetaTensor

from tskd.pretraining import RandomView, ViewsBatch

NOTHING = {"min_area": 1.0, "jitter": 0.0, "blur": 0.0}


def test_without_any_change_the_image_stays():
    image = torch.rand(3, 2, 16, 24)
    torch.testing.assert_close(RandomView(**NOTHING)(image), image, atol=1e-5, rtol=0)


def test_mirrors_the_first_axis_only():
    image = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(RandomView(**NOTHING, flip=1.0)(image), image.flip(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("min_area", [0.2, 0.5])
def test_crops_are_inside_and_not_smaller_than_asked(min_area):
    """Of an image that holds its own coordinates, a view shows the crop's corners."""
    torch.manual_seed(0)
    axis = torch.linspace(-1, 1, 65)
    image = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))[None].expand(200, -1, -1, -1)
    view = RandomView(**{**NOTHING, "min_area": min_area})(image)
    height = (view[:, 0, -1, 0] - view[:, 0, 0, 0]) / 2
    width = (view[:, 1, 0, -1] - view[:, 1, 0, 0]) / 2
    area = height * width * (65 / 64) ** 2  # of whole pixels, not from centre to centre
    assert view.abs().max() <= 1
    assert min_area - 0.02 < area.min() < min_area + 0.05
    assert 0.95 < area.max() < 1.05
    assert 1.2 < (height / width).max() < 1.4
    assert (height - height[0]).abs().max() > 0.1  # every item has its own


def test_intensities_stay_in_range_and_change_by_item():
    image = torch.rand(50, 1, 1, 1).expand(-1, -1, 8, 8).contiguous()
    view = RandomView(min_area=1.0, jitter=0.4, jitter_probability=0.5, blur=0.5)(image)
    assert view.min() >= 0
    assert view.max() <= 1
    changed = ((view - image).abs().amax((1, 2, 3)) > 1e-5).float().mean()
    assert 0.2 < changed < 0.8


def test_blur_keeps_the_mean_and_smooths_each_item_by_its_own_sigma():
    image = torch.zeros(40, 2, 33, 33)
    image[:, :, 16, 16] = 1.0
    view = RandomView(**{**NOTHING, "blur": 1.0}, max_sigma=2.0)._blur(image)
    torch.testing.assert_close(view.sum((2, 3)), torch.ones(40, 2), rtol=1e-5, atol=0)
    assert torch.equal(view[:, 0], view[:, 1])
    peaks = view[:, 0, 16, 16]
    assert peaks.max() > 0.3
    assert peaks.min() < 0.08


def test_batch_holds_all_first_views_then_all_second():
    image = torch.rand(3, 1, 8, 8)
    batch = {"image": MetaTensor(image), "case": ["a", "b", "c"]}
    inputs, target = ViewsBatch(torch.nn.Identity(), views=2)(batch, "cpu")
    assert type(inputs) is torch.Tensor
    assert torch.equal(inputs, torch.cat([image, image]))
    assert target is inputs
    different = ViewsBatch(RandomView(), views=2)(batch, "cpu")[0]
    assert not torch.equal(different[:3], different[3:])
