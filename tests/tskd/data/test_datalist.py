"""dataset.json: sections, structure, atomic writing."""

import copy
import json
from pathlib import Path

import pytest
from monai.data import DataLoader

from tskd.data import datalist
from tskd.errors import TskdError


def test_sections_partition_the_images(tiny):
    labelled = datalist.entries(tiny, "labelled", 3)
    unlabelled = datalist.entries(tiny, "unlabelled", 3)
    transfer = datalist.entries(tiny, "transfer", 3)
    assert [entry["case"] for entry in labelled] == ["c0", "c1", "c2"]
    assert [entry["case"] for entry in unlabelled] == ["c3", "c4", "c5"]
    assert [entry["image"] for entry in transfer] == [entry["image"] for entry in labelled + unlabelled]
    assert all("label" in entry for entry in labelled)
    assert not any("label" in entry for entry in unlabelled + transfer)
    assert len(datalist.entries(tiny, "labelled")) == 4
    assert [entry["case"] for entry in datalist.entries(tiny, "unlabelled", 0)] == ["c0", "c1", "c2", "c3", "c4", "c5"]


def test_paths_are_absolute_text(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    for entry in datalist.entries("dataset.json", "test"):
        assert {type(value) for value in entry.values()} == {str}
        assert Path(entry["image"]).is_absolute()
        assert Path(entry["label"]).is_file()


def test_keys_that_only_some_entries_have_do_not_reach_a_batch(tiny):
    data = datalist.read(tiny)
    data["training"][0]["index"] = 7
    datalist.write(tiny, data)
    assert datalist.read(tiny)["training"][0]["index"] == 7
    batch = next(iter(DataLoader(datalist.entries(tiny, "labelled"), batch_size=4)))
    assert set(batch) == {"image", "label", "group", "case"}


@pytest.mark.parametrize("count", [5, -1, 2.5, True, "3"])
def test_impossible_budget_names_the_limit(tiny, count):
    with pytest.raises(TskdError, match="0 to 4"):
        datalist.entries(tiny, "labelled", count)


def test_empty_and_unknown_sections_are_refused(tiny):
    with pytest.raises(TskdError, match="'labelled', found none"):
        datalist.entries(tiny, "labelled", 0)
    with pytest.raises(TskdError, match=r"labelled, unlabelled, transfer.*'train'"):
        datalist.entries(tiny, "train")


def test_write_then_read_is_identity(tiny, tmp_path):
    data = datalist.read(tiny)
    datalist.write(tmp_path / "deep" / "copy.json", data)
    assert datalist.read(tmp_path / "deep" / "copy.json") == data
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy.json"]


def test_failed_write_keeps_the_old_file(tiny):
    before = tiny.read_bytes()
    data = datalist.read(tiny)
    with pytest.raises(TskdError, match="labels"):
        datalist.write(tiny, {**data, "labels": {"1": "nerve"}})
    with pytest.raises(TypeError):
        datalist.write(tiny, {**data, "provenance": {"source": object()}})
    assert tiny.read_bytes() == before


def break_leak(data):
    data["test"][0]["group"] = "p0"


def break_unlabelled_leak(data):
    data["unlabelled"][0]["group"] = data["validation"][0]["group"]


def break_case(data):
    data["training"][1]["case"] = "c0"


def break_image(data):
    data["test"][0]["image"] = data["training"][0]["image"]


def break_spelling(data):
    data["test"][0]["image"] = f"images/../{data['training'][0]['image']}"


def break_key(data):
    del data["modality"]


def break_entry(data):
    del data["training"][2]["group"]


def break_label_names(data):
    data["labels"] = {"0": "background", "2": "nerve"}


def break_list(data):
    data["validation"] = {}


def break_unlabelled(data):
    data["unlabelled"][0]["label"] = "0_label.png"


BREAKS = {
    break_leak: r"group 'p0'.*'training' and 'test'",
    break_unlabelled_leak: r"group 'p6'.*'unlabelled' and 'validation'",
    break_case: r"case 'c0': expected once, found 2",
    break_image: r"image '0.png': expected once, found 2",
    break_spelling: r"image '0.png': expected once, found 2",
    break_key: r"modality: expected a str, found no such key",
    break_entry: r"training\[2\] \(case 'c2'\): expected text under 'group'",
    break_label_names: r"labels: .*\['0', '2'\]",
    break_list: r"validation: expected a list, found dict",
    break_unlabelled: r"unlabelled\[0\] .*no key 'label'",
}


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_structure_is_checked_whenever_it_is_read(tiny, damage):
    data = json.loads(tiny.read_text())
    damage(data)
    tiny.write_text(json.dumps(data))
    with pytest.raises(TskdError, match=BREAKS[damage]) as caught:
        datalist.entries(tiny, "labelled")
    assert str(tiny) in str(caught.value)


def test_training_and_unlabelled_may_share_patients(tiny):
    data = copy.deepcopy(datalist.read(tiny))
    data["unlabelled"][0]["group"] = "p0"
    assert datalist.structure_problems(data) == []


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(TskdError, match="no such file"):
        datalist.read(tmp_path / "dataset.json")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(TskdError, match="expected JSON"):
        datalist.read(tmp_path / "dataset.json")
