"""One geometry for every key, whatever its resolution; intensity changes for the image alone."""

import pytest
import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional

from tskd.distillation import BatchAugmentation, photometric
from tskd.distillation.augmentation import warp
from tskd.errors import TskdError

NO_GEOMETRY = {"rotate": 0, "scale": 0, "translate": 0, "shear": 0, "flip": 0}
NO_INTENSITY = {"gamma": 0, "brightness": 0, "noise": 0, "blur": 0}
STRONG = {"rotate": 30, "scale": 0.3, "translate": 0.1, "shear": 0.1, "flip": 0.5}


def blob(size: int, count: int, x: float = -0.4, y: float = 0.3) -> Tensor:
    """A Gaussian spot at (x, y) of [-1, 1], off both axes and the diagonal: count x 1 x size x size, x first."""
    places = (torch.arange(size) * 2 + 1) / size - 1
    spot = torch.exp(-((places[:, None] - x) ** 2 + (places[None] - y) ** 2) / (2 * 0.15**2))
    return spot.expand(count, 1, -1, -1).clone()


def centre(image: Tensor) -> Tensor:
    """Centre of mass in [-1, 1], one (x, y) an item."""
    size = image.shape[-1]
    places = (torch.arange(size) * 2 + 1) / size - 1
    mass = image.float().sum((1, 2, 3))
    along_x, along_y = image.float().sum((1, 3)), image.float().sum((1, 2))
    return torch.stack([along_x @ places / mass, along_y @ places / mass], dim=1)


def batch(count: int = 16) -> dict[str, Tensor]:
    """The same spot as image, label, logits and embedding, each in its own resolution and type."""
    return {
        "image": blob(64, count),
        "label": (blob(64, count) > 0.5).to(torch.uint8),
        "logits": blob(32, count).half(),
        "embedding": blob(16, count).half(),
    }


def test_all_keys_move_alike():
    torch.manual_seed(0)
    before, after = batch(), BatchAugmentation(**STRONG, **NO_INTENSITY)(batch())
    places = centre(after["image"])
    assert (places - centre(before["image"])).norm(dim=1).mean() > 0.1  # they do move
    for key in ("label", "logits", "embedding"):
        torch.testing.assert_close(centre(after[key]), places, atol=0.03, rtol=0, msg=f"{key}: {{}}".format)


def test_moves_as_the_sampled_affine_says():
    """The matrices lead from output to input, (second axis, first axis), as torch's affine_grid has them."""
    augmentation = BatchAugmentation(**STRONG, **NO_INTENSITY)
    torch.manual_seed(0)
    after = augmentation(batch())
    torch.manual_seed(0)
    matrix = augmentation.sample_affine(16, torch.device("cpu"))
    start = centre(batch()["image"]).flip(1)  # (y, x)
    expected = torch.linalg.solve(matrix[:, :, :2], (start - matrix[:, :, 2])[..., None])[..., 0].flip(1)
    torch.testing.assert_close(centre(after["image"]), expected, atol=0.02, rtol=0)


def test_flip_mirrors_the_first_axis():
    image = torch.rand(3, 2, 8, 6)
    label = torch.randint(0, 5, (3, 1, 16, 12), dtype=torch.uint8)
    logits = torch.randn(3, 4, 4, 3)
    after = BatchAugmentation(**{**NO_GEOMETRY, "flip": 1}, **NO_INTENSITY)(
        {"image": image, "label": label, "logits": logits}
    )
    torch.testing.assert_close(after["image"], image.flip(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(after["logits"], logits.flip(2), atol=1e-5, rtol=0)
    assert torch.equal(after["label"], label.flip(2))


def test_flip_is_a_probability():
    torch.manual_seed(0)
    after = BatchAugmentation(**{**NO_GEOMETRY, "flip": 0.25}, **NO_INTENSITY)({"image": blob(16, 400)})["image"]
    mirrored = (centre(after)[:, 0] > 0).float().mean()
    assert 0.15 < mirrored < 0.35
    torch.testing.assert_close(centre(after)[:, 1], torch.full((400,), 0.3), atol=0.02, rtol=0)


def test_nothing_to_do_is_the_identity():
    before = batch(2) | {"label": torch.randint(0, 255, (2, 1, 61, 47), dtype=torch.uint8)}
    after = BatchAugmentation(**NO_GEOMETRY, **NO_INTENSITY)(before)
    assert torch.equal(after.pop("label"), before.pop("label"))
    torch.testing.assert_close(after, before, atol=1e-3, rtol=0)
    torch.testing.assert_close(after["image"], before["image"], atol=1e-5, rtol=0)


def test_labels_stay_labels():
    """No mixture of two class numbers; 255 (unlabelled) as any other."""
    label = torch.zeros(8, 1, 32, 32, dtype=torch.uint8)
    label[:, :, 5:20, 8:30] = 3
    label[:, :, :, 26:] = 255
    after = BatchAugmentation(**STRONG)({"image": torch.rand(8, 1, 32, 32), "label": label})["label"]
    assert after.dtype == torch.uint8
    assert set(after.unique().tolist()) == {0, 3, 255}


def test_types_and_shapes_are_kept():
    before = batch(4) | {"logits": torch.randn(4, 5, 16, 16).bfloat16()}
    after = BatchAugmentation(**STRONG, blur=1)(before)
    assert {key: (value.dtype, value.shape) for key, value in after.items()} == {
        key: (value.dtype, value.shape) for key, value in before.items()
    }


def test_intensity_stays_in_range_and_off_the_other_keys():
    torch.manual_seed(0)
    before = batch() | {"image": torch.rand(16, 3, 32, 32)}
    augmentation = BatchAugmentation(**NO_GEOMETRY, gamma=1, brightness=0.5, noise=0.3, blur=0.5)
    after = augmentation(before)
    assert after["image"].min() >= 0
    assert after["image"].max() <= 1
    changes = (after["image"] - before["image"]).abs().mean((1, 2, 3))
    assert changes.min() > 0.01
    assert changes.std() > 0.01  # an own draw for each item
    assert torch.equal(after["label"], before["label"])
    torch.testing.assert_close(after["logits"], before["logits"], atol=1e-3, rtol=0)


def test_blur_keeps_a_constant_image_also_at_its_border():
    image = torch.full((4, 1, 16, 16), 0.7)
    after = BatchAugmentation(**NO_GEOMETRY, **{**NO_INTENSITY, "blur": 1})({"image": image})["image"]
    torch.testing.assert_close(after, image, atol=1e-4, rtol=0)


def test_the_blur_is_monais_gaussian_filter_inside_the_image():
    image = torch.rand(2, 3, 20, 24, generator=torch.manual_seed(0))
    blurred = photometric.blurred(image, BatchAugmentation().kernel)
    expected = GaussianFilter(spatial_dims=2, sigma=0.7)(image)
    assert blurred.shape == image.shape
    torch.testing.assert_close(blurred[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3])


def test_blur_smooths():
    torch.manual_seed(0)
    image = torch.rand(2, 1, 32, 32)
    after = BatchAugmentation(**NO_GEOMETRY, **{**NO_INTENSITY, "blur": 1})({"image": image})["image"]
    assert after.std() < 0.6 * image.std()
    torch.testing.assert_close(after.mean(), image.mean(), atol=0.02, rtol=0)


def test_the_seed_decides():
    augmentation, results = BatchAugmentation(**STRONG, blur=0.5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(augmentation(batch(4)))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
    assert not torch.equal(results[0]["image"], results[2]["image"])


def test_border_is_repeated():
    """A shift brings in the border's value, not black."""
    matrix = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]])  # half an image along the first axis
    image = torch.arange(4.0).reshape(1, 1, 4, 1).expand(1, 1, 4, 4)
    assert warp(image, matrix)[0, 0, :, 0].tolist() == [2, 3, 3, 3]


def test_warp_commutes_with_resizing():
    """What lets logits be stored small: warping a smooth map and then halving it, or the other way round."""
    torch.manual_seed(0)
    matrix = BatchAugmentation(**STRONG).sample_affine(4, torch.device("cpu"))
    x = blob(64, 4)
    one = functional.avg_pool2d(warp(x, matrix), 2)
    other = warp(functional.avg_pool2d(x, 2), matrix)
    torch.testing.assert_close(one, other, atol=0.05, rtol=0)


def test_needs_an_image():
    with pytest.raises(TskdError, match=r"expected the key 'image', found \['label'\]"):
        BatchAugmentation()({"label": torch.zeros(1, 1, 4, 4)})


def test_exposure_scales_an_image_by_one_factor_and_clips_at_one():
    torch.manual_seed(0)
    image = torch.full((256, 1, 8, 8), 0.2)
    image[..., 4:] = 0.9
    after = BatchAugmentation(**NO_GEOMETRY, **NO_INTENSITY, exposure=1)({"image": image})["image"]
    dark, bright = after[..., :4], after[..., 4:]
    factor = dark[:, 0, 0, 0] / 0.2
    assert factor.log2().abs().max() <= 1
    assert factor.log2().min() < -0.9
    assert factor.log2().max() > 0.9
    torch.testing.assert_close(dark, (0.2 * factor)[:, None, None, None].expand_as(dark))
    torch.testing.assert_close(bright, (0.9 * factor).clamp(max=1)[:, None, None, None].expand_as(bright))
