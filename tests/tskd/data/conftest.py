"""A small virtual cohort and a small hand-made data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tskd.data import datalist
from tskd.data.phantom.cohort import prepare_phantom


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dataset.json of six virtual patients (read only)."""
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    return prepare_phantom(folder, num_patients=6, image_size=48, num_slices=6, num_validation=1, num_test=2)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """dataset.json of eight grey 2-D images, 7 x 5 pixels: four training patients with a case each, and so on."""
    rng = np.random.default_rng(0)
    lists: dict[str, list[dict[str, str]]] = {"training": [], "unlabelled": [], "validation": [], "test": []}
    places = ["training"] * 4 + ["unlabelled"] * 2 + ["validation", "test"]
    for number, section in enumerate(places):
        entry = {"image": f"{number}.png", "group": f"p{number}", "case": f"c{number}"}
        Image.fromarray(rng.integers(0, 255, (5, 7), dtype=np.uint8)).save(tmp_path / entry["image"])
        if section != "unlabelled":
            entry["label"] = f"{number}_label.png"
            Image.fromarray(rng.choice(np.array([0, 1, 255], np.uint8), (5, 7))).save(tmp_path / entry["label"])
        lists[section].append(entry)
    header = {"name": "tiny", "modality": "US", "channels": 1, "labels": {"0": "background", "1": "nerve"}}
    datalist.write(tmp_path / "dataset.json", {**header, **lists, "provenance": {}})
    return tmp_path / "dataset.json"
