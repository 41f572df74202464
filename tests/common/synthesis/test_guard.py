"""No image of validation or test is trained on, under whatever name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.datalist import entries, write
from common.errors import TskdError
from common.synthesis import check_training_images


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """dataset.json of 2-D images: two for training, one unlabelled, one for validation, one for the test."""
    rng = np.random.default_rng(0)
    lists = {"training": ["a", "b"], "unlabelled": ["c"], "validation": ["d"], "test": ["e"]}
    for name in "abcde":
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    data = {
        section: [
            {"image": f"{n}.png", "group": n, "case": n} | ({} if section == "unlabelled" else {"label": f"{n}.png"})
            for n in names
        ]
        for section, names in lists.items()
    }
    header = {"name": "flat", "modality": "US", "channels": 1, "labels": {"0": "background", "1": "nerve"}}
    write(tmp_path / "dataset.json", {**header, **data})
    return tmp_path / "dataset.json"


def test_the_transfer_list_passes(flat, cohort):
    check_training_images(flat, entries(flat, "transfer"))
    check_training_images(cohort, entries(cohort, "transfer"))


@pytest.mark.parametrize("section", ["validation", "test"])
def test_held_out_entries_are_refused_by_list(flat, section):
    with pytest.raises(TskdError, match=f"in the list '{section}'"):
        check_training_images(flat, entries(flat, "transfer") + entries(flat, section))


def test_a_renamed_copy_is_refused_by_content(flat):
    Image.open(flat.parent / "e.png").convert("RGB").save(flat.parent / "c.png")
    with pytest.raises(TskdError, match=r"c\.png .*has the pixels of .*e\.png \(in 'test'\)"):
        check_training_images(flat, entries(flat, "transfer"))


def test_an_image_of_no_list_is_refused(flat):
    shutil.copy(flat.parent / "a.png", flat.parent / "stray.png")
    with pytest.raises(TskdError, match=r"stray\.png is in no list"):
        check_training_images(flat, [{"image": str(flat.parent / "stray.png")}])
