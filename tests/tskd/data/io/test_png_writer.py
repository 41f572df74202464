"""`encode_png` against Pillow: the same pixels come back, in files of about the size, that the strict reader takes."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tskd.data.io.picture_header import open_picture
from tskd.data.io.png_writer import encode_png

SIDES = st.integers(1, 40)
SHAPES = st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.just(3)))


@given(arrays.arrays(np.uint8, SHAPES))
def test_the_pixels_come_back(pixels):
    """Of any size, grey or RGB."""
    with Image.open(io.BytesIO(encode_png(pixels))) as picture:
        assert picture.mode == ("L" if pixels.ndim == 2 else "RGB")
        np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("kind", ["flat", "left", "above", "two values"])
def test_a_filter_is_chosen_that_fits(tmp_path, kind):
    """Rows or columns that rise, and masks, take a small part of their bytes; checksums and end are right."""
    rise = np.add.outer(np.zeros(256, int), np.arange(256) * 3) % 256
    pixels = {"flat": rise * 0 + 7, "left": rise, "above": rise.T, "two values": rise > 100}[kind].astype(np.uint8)
    (tmp_path / "picture.png").write_bytes(encode_png(pixels[:, ::-1]))
    assert (tmp_path / "picture.png").stat().st_size < pixels.size / 20
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "picture.png")), pixels[:, ::-1])


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)])
def test_other_arrays_are_refused(pixels):
    """Floats, transparency and nothing."""
    with pytest.raises(ValueError, match="expected uint8"):
        encode_png(pixels)
