"""One resizing everywhere: training, the shipped bundle and NumPy agree, and none changes a constant image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Resized
from torch.nn import functional as F

from tskd.data.antialias import AntialiasedResized
from tskd.predict import resize_matrices
from tskd.predict.numpy_pipeline import ANTIALIAS

CONFIGS = Path(__file__).resolve().parents[3] / "bundles"
SIZE = 24
SHAPES = [(1, 61, 40), (3, 33, 90), (1, 24, 24), (1, 12, 17), (1, 50, 38, 4), (1, 24, 31, 1)]


def _ours(image: torch.Tensor) -> Compose:
    return Compose([AntialiasedResized("image", (SIZE, SIZE, -1)[: image.ndim - 1], "bilinear")])


def _shipped(image: torch.Tensor) -> Compose:
    """The steps between scaling and typing of a shipped bundle's inference.json."""
    parser = ConfigParser()
    names = ["inference.json", *["inference_2d.json"] * (image.ndim == 3)]
    parser.read_config([str(CONFIGS / "student_segmentation/configs" / name) for name in names])
    parser["image_size"] = SIZE
    steps = parser["preprocessing#transforms"]
    at = next(k for k, step in enumerate(steps) if isinstance(step, dict) and step["_target_"] == "Resized")
    parser["preprocessing#transforms"] = steps[at - 1 : at + 2]
    return parser.get_parsed_content("preprocessing")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chain", [_ours, _shipped])
def test_the_result_is_that_of_torch_and_goes_back(shape: tuple[int, ...], chain: Callable[..., Compose]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))
    transform = chain(image)
    item = transform({"image": MetaTensor(image.clone(), torch.eye(4))})
    assert set(item) == {"image"}
    slices = image[None] if image.ndim == 3 else image.movedim(3, 0)
    expected = F.interpolate(slices, (SIZE, SIZE), mode="bilinear", antialias=True)
    expected = expected[0] if image.ndim == 3 else expected.movedim(0, 3)
    torch.testing.assert_close(item["image"].as_tensor(), expected, rtol=0, atol=1e-6)
    plain = Resized("image", (SIZE, SIZE, -1)[: image.ndim - 1], mode="bilinear" if image.ndim == 3 else "trilinear")
    stock: Any = plain({"image": MetaTensor(image.clone(), torch.eye(4))})["image"]
    torch.testing.assert_close(item["image"].affine, stock.affine)
    item["pred"] = MetaTensor(item["image"].as_tensor().clone(), item["image"].affine)
    back = Invertd("pred", transform, orig_keys="image", nearest_interp=False)(item)["pred"]
    assert back.shape == image.shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chain", [_ours, _shipped])
def test_a_constant_image_stays_constant(shape: tuple[int, ...], chain: Callable[..., Compose]) -> None:
    image = torch.full(shape, 0.7)
    small = chain(image)({"image": MetaTensor(image, torch.eye(4))})["image"]
    torch.testing.assert_close(small.as_tensor(), torch.full_like(small.as_tensor(), 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_gives_the_same(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = _ours(image)({"image": MetaTensor(image.clone(), torch.eye(4))})["image"].numpy()
    slices = image.numpy() if image.ndim == 3 else image.numpy()[0].transpose(2, 0, 1)
    shrink = resize_matrices.antialiased
    found = shrink(shape[1], SIZE) @ slices @ shrink(shape[2], SIZE).T
    np.testing.assert_allclose(found, expected if image.ndim == 3 else expected[0].transpose(2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(shrink(shape[1], SIZE).sum(axis=1), 1, atol=1e-6)


def test_a_label_is_not_smoothed() -> None:
    label = torch.randint(0, 4, (1, 61, 40), generator=torch.Generator().manual_seed(2)).float()
    resize = AntialiasedResized(["image", "label"], (SIZE, SIZE), ["bilinear", "nearest-exact"])
    found = resize({"image": MetaTensor(label.clone()), "label": MetaTensor(label.clone())})
    assert set(found["label"].unique().tolist()) <= {0, 1, 2, 3}
    assert set(found["image"].unique().tolist()) > {0, 1, 2, 3} or found["image"].unique().numel() > 4


def test_every_config_resizes_so() -> None:
    """MONAI's own smoothing darkens the border; `Resized` alone is aliased."""
    assert json.loads((CONFIGS / "student_segmentation/configs/inference.json").read_text())["antialias"] == ANTIALIAS
    for path in sorted(CONFIGS.glob("*/configs/*.json")):
        text = path.read_text(encoding="utf-8")
        assert "anti_aliasing" not in text, path
        assert text.count('"Resized"') == text.count('"Lambda"'), path
