"""Pictures are read as they are meant and written without metadata; masks in every usual form mean the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, PngImagePlugin

from tskd.data.io.image_files import colour_channels, distinct, pair, read_image, read_mask, write_picture
from tskd.data.public.field_of_view import field_of_view
from tskd.errors import TskdError

TRUTH = np.zeros((6, 9), np.uint8)
TRUTH[1:3, 2:8] = 1


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@given(arrays.arrays(np.uint8, (3, 5)))
def test_distinct_values_are_those_of_numpy(array):
    assert distinct(array) == np.unique(array).tolist()
    assert distinct(array > 7) == np.unique(array > 7).tolist()


@given(st.sampled_from([(7, 5), (7, 5, 3)]), st.data())
def test_what_is_written_is_read(tmp_path_factory, shape, data):
    pixels = data.draw(arrays.arrays(np.uint8, shape))
    path = tmp_path_factory.getbasetemp() / "sub" / "pixels.png"
    write_picture(path, pixels)
    np.testing.assert_array_equal(read_image(path, 1 if len(shape) == 2 else 3), pixels)


def test_a_turned_photograph_is_written_upright_without_metadata(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Jane Doe"  # orientation: a quarter turn clockwise is upright; a description
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", "Jane Doe")
    path = save(tmp_path / "photo.png", pixels, exif=exif, pnginfo=text)
    upright = read_image(path, 3)
    np.testing.assert_array_equal(upright, np.rot90(pixels, -1))
    write_picture(tmp_path / "clean.png", upright)
    with Image.open(tmp_path / "clean.png") as clean:
        assert not clean.info
        assert not clean.getexif()
    assert b"Jane" not in (tmp_path / "clean.png").read_bytes()


def test_modes_of_files(tmp_path):
    grey = (TRUTH * 200).astype(np.uint8)
    colour = np.stack([grey, grey // 2, grey // 4], axis=2)
    Image.fromarray(colour).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "grey_palette.png")
    Image.fromarray(grey).convert("LA").save(tmp_path / "alpha.png")
    save(tmp_path / "deep.png", grey.astype(np.uint16) * 200)
    (tmp_path / "half.png").write_bytes((tmp_path / "alpha.png").read_bytes()[:50])
    assert [colour_channels(tmp_path / f"{name}.png") for name in ("palette", "grey_palette", "alpha")] == [3, 1, 1]
    np.testing.assert_array_equal(read_image(tmp_path / "grey_palette.png", 1), grey)
    with pytest.raises(TskdError, match=r"deep\.png: expected an image of 8 bits a channel, .*I;16"):
        read_image(tmp_path / "deep.png", 1)
    with pytest.raises(TskdError, match=r"half\.png: expected a readable image"):
        read_image(tmp_path / "half.png", 1)


@pytest.mark.parametrize("white", [1, 2, 128, 255])
def test_black_and_white_masks_mean_the_same(tmp_path, white):
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", TRUTH * np.uint8(white)), 1), TRUTH)
    everything = save(tmp_path / "all.png", np.full((6, 9), white, np.uint8))
    assert (read_mask(everything, 1) == 1).all()


def test_masks_of_other_modes(tmp_path):
    save(tmp_path / "bits.png", TRUTH.astype(bool))
    save(tmp_path / "deep.png", TRUTH.astype(np.uint16) * 65535)
    Image.fromarray(TRUTH * 255).convert("RGB").save(tmp_path / "rgb.png")
    palette = Image.fromarray(TRUTH).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "palette.png")
    for name in ("bits", "deep", "rgb", "palette"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png", 1), TRUTH)


def test_index_masks_keep_their_values(tmp_path):
    index = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", index), 2), index)
    only_second = np.array([[0, 2]], np.uint8)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "s.png", only_second), 2), only_second)


@pytest.mark.parametrize(
    ("values", "structures", "message"),
    [([0, 1, 3], 2, "2 .*found 0, 1, 3.*Name as many"), ([0, 255], 2, "2 .*found 0, 255"),
     ([0, 7], 2, "2 .*found 0, 7"),
     ([0, 100, 200], 1, "1 .*found 0, 100, 200")],
)  # fmt: skip
def test_other_masks_are_refused_with_what_was_found(tmp_path, values, structures, message):
    path = save(tmp_path / "odd.png", np.array([values], np.uint8))
    with pytest.raises(TskdError, match=rf"odd\.png: expected class indices 0 to {message}"):
        read_mask(path, structures)


def test_masks_from_jpeg_and_in_colour_are_refused(tmp_path):
    jpeg = save(tmp_path / "m.jpg", np.kron(TRUTH * np.uint8(255), np.ones((5, 5), np.uint8)), quality=60)
    with pytest.raises(TskdError, match=r"m\.jpg.*save the mask as PNG"):
        read_mask(jpeg, 1)
    colour = save(tmp_path / "c.png", np.stack([TRUTH, TRUTH * 0, TRUTH * 0], axis=2) * np.uint8(255))
    with pytest.raises(TskdError, match=r"c\.png: expected a mask of one channel, found colours"):
        read_mask(colour, 1)


def test_pairs_by_name(tmp_path):
    images = [tmp_path / "b.jpg", tmp_path / "a.JPG"]
    masks = [tmp_path / "a_mask.png", tmp_path / "b_mask.png"]
    assert pair(images, masks, "_mask") == [(images[0], masks[1]), (images[1], masks[0])]
    with pytest.raises(TskdError, match=r"1 images have none \(b\.jpg\), 1 masks have no image \(c_mask\.png\)"):
        pair(images, [masks[0], tmp_path / "c_mask.png"], "_mask")
    with pytest.raises(TskdError, match=r"one mask for 'a', found a_mask\.png too"):
        pair(images, [masks[0], tmp_path / "a_mask.tif"], "_mask")


def test_field_of_view_is_the_disc(tmp_path):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :100]
    disc = (y - 47) ** 2 + (x - 52) ** 2 < 40**2
    image = rng.integers(0, 10, (96, 100, 3), dtype=np.uint8)  # the frame is not quite black
    image[disc] = (180, 90, 30)
    image[40:44, 40:60] = 0  # something dark inside
    image[2:6, 2:9] = 255  # text in the frame
    np.testing.assert_array_equal(field_of_view(image), disc)
    with pytest.raises(TskdError, match="at least a quarter of the image, found 0%"):
        field_of_view(np.zeros((20, 20, 3), np.uint8))
