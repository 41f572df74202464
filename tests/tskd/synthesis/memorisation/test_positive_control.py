"""The gate's positive control: what the altered copies are, and how many of them the gate finds."""

import json

import pytest
import torch

from tests.tskd.synthesis.memorisation.test_gate import plant
from tskd.data.datalist import entries
from tskd.synthesis import gate, load_images
from tskd.synthesis.memorisation.positive_control import ALTERATIONS, rotated, shifted

FOUND = ["unchanged", "flipped", "brighter: gamma 0.7", "less contrast: 0.7 x + 0.2", "shifted by 3 pixels"]


def landmark(x: int, y: int) -> torch.Tensor:
    image = torch.zeros(1, 1, 65, 65)
    image[0, 0, x, y] = 1
    return image


def place(image: torch.Tensor) -> tuple[int, int]:
    return divmod(int(image[0, 0].argmax()), 65)


def test_a_shift_is_towards_larger_x_and_y_in_pixels():
    assert torch.equal(shifted(landmark(10, 20), 3), landmark(13, 23))
    assert (shifted(torch.arange(8.0).expand(1, 1, 8, 8), 3)[0, 0, 0]).tolist() == [0, 0, 0, 0, 1, 2, 3, 4]


def test_enlarged_about_the_middle():
    assert place(rotated(landmark(42, 22), zoom=2.0)) == (52, 12)


def test_turned_about_the_middle():
    assert place(rotated(landmark(42, 32), degrees=90)) in [(32, 22), (32, 42)]
    torch.testing.assert_close(rotated(rotated(landmark(42, 30), degrees=90), degrees=-90), landmark(42, 30))


def test_a_composite_is_of_two_images():
    images = torch.stack([torch.full((1, 8, 8), float(k)) for k in range(4)])
    composite = ALTERATIONS["half of another image"](images)
    assert composite[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert composite[:, 0, 7, 0].tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_images_are_images_of_the_same_size(name):
    images = torch.rand(4, 3, 32, 48, generator=torch.manual_seed(0))
    altered = ALTERATIONS[name](images)
    assert altered.shape == images.shape
    torch.testing.assert_close(altered.clamp(0, 1), altered)
    assert torch.equal(altered, images) is (name == "unchanged")


def test_the_report_says_how_many_altered_copies_the_gate_finds(cohort, tmp_path):
    new = torch.rand(4, 1, 64, 64, generator=torch.manual_seed(0))
    folder = plant(tmp_path, new)
    report = gate(folder, cohort, copies=12)
    copies = json.loads((folder / "memorisation.json").read_text())["copies"]
    assert copies == report["copies"]
    assert list(copies) == list(ALTERATIONS)
    assert all(kind["images"] == 12 and kind["by_features"] is None for kind in copies.values())
    assert [copies[name]["flagged"] for name in FOUND] == [12] * len(FOUND)
    assert copies["unchanged"]["smallest_similarity"] == 1
    # the same as if these copies lay in the folder
    originals = load_images(entries(cohort, "transfer"), 64)[0]
    planted = plant(tmp_path / "planted", torch.cat([rotated(originals, degrees=6), new]))
    every = gate(planted, cohort, copies=len(originals))
    assert every["copies"]["turned by 6 degrees"]["flagged"] == every["synthetic"]["flagged"]
    assert gate(folder, cohort, copies=0)["copies"] is None
