"""The matrices are what torch and MONAI compute."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Resize
from torch.nn import functional as F

from tskd.predict import resize_matrices

SIZES = st.integers(2, 70)


def _image(wide: int, high: int) -> np.ndarray:
    return np.random.default_rng(wide * 100 + high).random((wide, high), np.float32)


@settings(deadline=None, max_examples=25)
@given(SIZES, SIZES, st.integers(4, 40), st.booleans())
def test_linear_and_antialiased_are_those_of_torch(wide: int, high: int, size: int, antialias: bool) -> None:
    image = _image(wide, high)
    shrink = resize_matrices.antialiased if antialias else resize_matrices.linear
    expected = F.interpolate(torch.from_numpy(image)[None, None], (size, size), mode="bilinear", antialias=antialias)
    np.testing.assert_allclose(shrink(wide, size) @ image @ shrink(high, size).T, expected[0, 0], atol=1e-5)


@pytest.mark.parametrize(("wide", "high"), [(64, 48), (20, 97), (33, 32), (16, 16), (200, 31)])
def test_smoothed_is_that_of_monai(wide: int, high: int) -> None:
    image = _image(wide, high)
    expected = Resize((32, 32), mode="bilinear", anti_aliasing=True)(torch.from_numpy(image)[None])[0]
    resized = resize_matrices.smoothed(wide, 32) @ image @ resize_matrices.smoothed(high, 32).T
    np.testing.assert_allclose(resized, np.asarray(expected), atol=1e-5)
