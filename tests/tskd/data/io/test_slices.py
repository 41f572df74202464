"""PNG slices are what MONAI reads."""

import numpy as np
import pytest
from monai.transforms import LoadImaged

from tskd.data.io.slices import write_slices
from tskd.errors import TskdError


def test_png_read_by_monai_equals_the_slice(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 6, 4)).astype(np.float32) / 255
    image[7, 1, 2] = 1.0  # a landmark far from every symmetry
    label = np.zeros((9, 6, 4), np.uint8)
    label[7, 1, 2], label[0, 5, 2], label[3, 3, 2] = 4, 255, 1
    written = write_slices(tmp_path, "31", image, label)
    assert written[2] == {
        "image": "slices/31_002.png",
        "label": "slices/31_002_label.png",
        "group": "31",
        "case": "31_002",
    }
    load = LoadImaged(["image", "label"], reader="PILReader")
    for k, entry in enumerate(written):
        item = load({key: str(tmp_path / entry[key]) for key in ("image", "label")})
        np.testing.assert_array_equal(item["image"].numpy() / 255, image[:, :, k])
        np.testing.assert_array_equal(item["label"].numpy(), label[:, :, k])


def test_unlabelled_patient_has_no_label_key(tmp_path):
    image = np.random.default_rng(0).random((5, 5, 2))
    assert all(set(entry) == {"image", "group", "case"} for entry in write_slices(tmp_path, "a", image))
    assert not list(tmp_path.glob("slices/*label*"))


def test_blank_slices_are_left_out_and_the_others_keep_their_number(tmp_path):
    image = np.random.default_rng(0).random((5, 5, 4))
    image[:, :, [0, 2]] = 0
    assert [entry["case"] for entry in write_slices(tmp_path, "a", image)] == ["a_001", "a_003"]


def test_odd_arrays_are_refused(tmp_path):
    image = np.random.default_rng(0).random((5, 5, 2))
    with pytest.raises(TskdError, match=r"patient a: expected a label of the image's shape \(5, 5, 2\)"):
        write_slices(tmp_path, "a", image, np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(TskdError, match=r"patient a: expected intensities in \[0, 1\]"):
        write_slices(tmp_path, "a", image * 255)
