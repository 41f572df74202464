"""versions.json says what a model was made of: its data and the teacher behind it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.standalone import ship
from tskd.data import fingerprint
from tskd.handlers.provenance import provenance, teacher_of


def manifest(folder: Path, vfm: str | None) -> str:
    folder.mkdir()
    preprocessing = {} if vfm is None else {"vfm": vfm}
    (folder / "manifest.json").write_text(json.dumps({"preprocessing": preprocessing}))
    return str(folder)


def test_the_data_are_described_by_what_a_model_depends_on(tmp_path: Path) -> None:
    ship(tmp_path, "nii.gz", intensity={"window": [-160, 240]})
    file = tmp_path / "dataset.json"
    content = json.loads(file.read_text())
    data = provenance({"dataset_file": str(file)})["data"]
    assert {key: data[key] for key in ("name", "labels", "channels", "modality")} == {
        key: content[key] for key in ("name", "labels", "channels", "modality")
    }
    assert data["intensity"] == {"window": [-160, 240]}
    assert (data["licence"], data["sha256"]) == ("not stated", fingerprint(file))


def test_the_data_are_found_again_from_the_run_below_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tmp_path, "nii.gz")
    settings = {"dataset_file": str(tmp_path / "dataset.json")}
    assert "file" not in provenance(settings, tmp_path / "runs/a")["data"]
    monkeypatch.chdir(tmp_path)
    assert provenance(settings, "runs/a")["data"]["file"] == os.path.join("..", "..", "dataset.json")
    assert "file" not in provenance(settings, tmp_path.parent / "a")["data"]


@pytest.mark.parametrize(
    ("settings", "teacher"),
    [({"vfm": "sam_vit_b"}, "sam_vit_b"), ({"init_weights": None}, ""), ({}, ""), ({"init_weights": "a/b.pt"}, None)],
)
def test_the_teacher_of_a_run(settings: dict[str, Any], teacher: str | None) -> None:
    assert teacher_of(settings) == teacher


def test_the_teacher_behind_soft_labels_and_behind_the_training_before(tmp_path: Path) -> None:
    one, two = manifest(tmp_path / "one", "mobile_sam"), manifest(tmp_path / "two", "lite_medsam")
    assert teacher_of({"soft_labels": one}) == "mobile_sam"
    for committee in ([two, one, one], [[two], [one, one]], [two, [one]]):  # as teacher_weights takes them
        assert teacher_of({"soft_labels": committee}) == "lite_medsam,mobile_sam"
    assert teacher_of({"soft_labels": [one, manifest(tmp_path / "bundle", None)]}) is None
    before = tmp_path / "distilled"
    before.mkdir()
    (before / "versions.json").write_text(json.dumps({"teacher": "mobile_sam"}))
    assert teacher_of({"init_weights": str(before / "models" / "model.pt")}) == "mobile_sam"
