"""A shipped model says what its data and its teacher's weights allow."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tskd.data.public import chaos, chase_db1
from tskd.export.terms import SPDX, TEACHERS, first_weights, front_matter, write_terms
from tskd.networks import ENCODERS, VFMS


def dataset(licence: str | None) -> dict[str, Any]:
    return {"name": "mine", "provenance": {"source": "a hospital"} | ({"licence": licence} if licence else {})}


def written(folder: Path, licence: str | None, teacher: str | None) -> tuple[str, str]:
    (folder / "docs").mkdir(exist_ok=True)
    write_terms(folder, dataset(licence), teacher)
    return (folder / "LICENSE").read_text(), (folder / "docs/data_license.txt").read_text()


def test_a_model_of_non_commercial_data_does_not_pass_as_free(tmp_path: Path) -> None:
    licence, data = written(tmp_path, "CC BY-NC-SA 4.0", "mobile_sam")
    assert 'trained on the data set "mine" (a hospital)' in licence
    assert "Licence of the data: CC BY-NC-SA 4.0." in licence
    assert "MobileSAM, Apache-2.0" in licence
    assert "No commercial use; what is derived from the data is passed on under the same licence." in data
    assert yaml.safe_load(front_matter(dataset("CC BY-NC-SA 4.0"), []).split("---")[1])["license"] == "cc-by-nc-sa-4.0"


@pytest.mark.parametrize("licence", ["not stated", None, "by agreement with the ethics board"])
def test_a_licence_that_is_not_known_is_not_made_up(tmp_path: Path, licence: str | None) -> None:
    _, data = written(tmp_path, licence, None)
    assert "Ask the owner of the images before you pass these weights on." in data
    assert "is not recorded" in data
    card = yaml.safe_load(front_matter(dataset(licence), ["x: [y"]).split("---")[1])
    assert (card["license"], card["license_link"]) == ("other", "LICENSE")
    assert card["tags"][-1] == "x: [y"


@pytest.mark.parametrize("licence", SPDX)
def test_each_known_licence_has_its_consequence(tmp_path: Path, licence: str) -> None:
    licence_text, data = written(tmp_path, licence, "")
    assert f"Licence of the data: {licence}." in licence_text
    assert "No other weights were used." in licence_text
    assert "Ask the owner" not in data


def test_each_preparer_and_foundation_model_is_known() -> None:
    assert {chaos._PROVENANCE["licence"], chase_db1._PROVENANCE["licence"]} <= set(SPDX)
    assert set(TEACHERS) == {*VFMS, *ENCODERS}


def test_weights_that_the_network_began_with_are_named(tmp_path: Path) -> None:
    """No teacher, but an encoder of others: "no other weights were used" would not be true."""
    lite = {"config": ["train.json", "lite_unet.json"], "settings": {"encoder_weights": None}}
    (tmp_path / "docs").mkdir()
    write_terms(tmp_path, dataset("CC0 1.0"), "", first_weights(lite))
    licence = (tmp_path / "LICENSE").read_text()
    assert "Its own network began with EfficientNet-Lite0 trained on ImageNet, Apache-2.0." in licence
    assert "No other weights" not in licence
    assert first_weights({**lite, "settings": {"encoder_weights": "random"}}) == ""
    assert first_weights({"config": ["train.json"]}) == ""
