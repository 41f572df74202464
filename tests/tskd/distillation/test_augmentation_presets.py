"""Presets: which modality has which, what they never do, and that their new parts move or change what they should."""

import pytest
import torch

from tests.tskd.distillation.test_augmentation import NO_GEOMETRY, NO_INTENSITY, batch, centre
from tskd.distillation import BatchAugmentation, preset_augmentation
from tskd.distillation.augmentation_presets import PRESETS, preset_of
from tskd.errors import TskdError


@pytest.mark.parametrize(
    ("modality", "preset"),
    [
        ("MR", "mr"), ("mri", "mr"), ("CT", "ct"), ("US", "ultrasound"), ("B-mode ultrasound", "ultrasound"),
        ("dermoscopy", "dermoscopy"), ("fundus photography", "fundus"), ("X-ray", "xray"), ("CR", "xray"),
        ("chest radiograph", "xray"), ("unknown", "plain"), ("focus stacks", "plain"), ("fundus", "fundus"),
    ],
)  # fmt: skip
def test_each_modality_has_its_preset(modality, preset):
    assert preset_of(modality) == preset


@pytest.mark.parametrize("name", ["mr", "ct", "ultrasound", "xray", "plain"])
def test_no_mirror_images_where_organs_differ(name):
    """A spot that is far to the left stays on its side of the middle, and orientation is kept."""
    augmentation = preset_augmentation(name)
    assert augmentation.flip == augmentation.flip_y == 0
    torch.manual_seed(0)
    matrix = augmentation.sample_affine(500, torch.device("cpu"))
    assert (torch.linalg.det(matrix[:, :, :2]) > 0).all()


@pytest.mark.parametrize("name", ["dermoscopy", "fundus"])
def test_any_orientation_where_there_is_none(name):
    torch.manual_seed(0)
    matrix = preset_augmentation(name).sample_affine(500, torch.device("cpu"))
    mirrored = (torch.linalg.det(matrix[:, :, :2]) < 0).float().mean()
    assert 0.4 < mirrored < 0.6
    angles = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]).rad2deg()
    assert torch.histc(angles, 4, -180, 180).min() > 60


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_preset_keeps_the_range_and_the_labels(name, channels):
    torch.manual_seed(0)
    label = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    label[:, :, 5:20, 8:30] = 3
    after = preset_augmentation(name)({"image": torch.rand(4, channels, 32, 32), "label": label})
    assert after["image"].shape == (4, channels, 32, 32)
    assert 0 <= after["image"].min() <= after["image"].max() <= 1
    assert set(after["label"].unique().tolist()) <= {0, 3}


def test_elastic_moves_all_keys_alike():
    torch.manual_seed(0)
    after = BatchAugmentation(**NO_GEOMETRY, **NO_INTENSITY, elastic=0.12)(batch())
    places = centre(after["image"])
    assert (places - centre(batch()["image"])).norm(dim=1).mean() > 0.03
    for key in ("logits", "embedding"):
        torch.testing.assert_close(centre(after[key]), places, atol=0.02, rtol=0)
    torch.testing.assert_close(centre(after["label"]), centre(after["image"] > 0.5), atol=0.01, rtol=0)


def test_flip_y_mirrors_the_second_axis():
    image = torch.rand(3, 2, 8, 6)
    after = BatchAugmentation(**NO_GEOMETRY, **NO_INTENSITY, flip_y=1)({"image": image})["image"]
    torch.testing.assert_close(after, image.flip(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", ["saturation", "colour"])
def test_colour_is_for_rgb(change):
    torch.manual_seed(0)
    grey, rgb = torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8)
    augmentation = BatchAugmentation(**NO_GEOMETRY, **NO_INTENSITY, **{change: 0.3})
    torch.testing.assert_close(augmentation({"image": grey})["image"], grey, atol=1e-5, rtol=0)
    assert (augmentation({"image": rgb})["image"] - rgb).abs().mean() > 0.005


def test_contrast_keeps_the_mean_and_low_resolution_the_places():
    torch.manual_seed(0)
    image = torch.rand(8, 1, 32, 32) * 0.4 + 0.3
    after = BatchAugmentation(**NO_GEOMETRY, **NO_INTENSITY, contrast=0.5)({"image": image})["image"]
    torch.testing.assert_close(after.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-3, rtol=0)
    assert ((after.std((1, 2, 3)) / image.std((1, 2, 3))) - 1).abs().max() > 0.1
    spots = batch(8)
    after = BatchAugmentation(**NO_GEOMETRY, **NO_INTENSITY, low_resolution=1)(spots)
    torch.testing.assert_close(centre(after["image"]), centre(spots["image"]), atol=0.03, rtol=0)


def test_changes_win_over_the_preset_and_unknown_ones_are_named():
    augmentation = preset_augmentation("dermoscopy", flip=0, rotate=None)
    assert (augmentation.flip, augmentation.flip_y, augmentation.rotate) == (0, 0.5, 180)
    with pytest.raises(TskdError, match=r"expected blur, .*, found rotat"):
        preset_augmentation("MR", rotat=3)
