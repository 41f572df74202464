"""The gate catches planted copies, lets new patients pass at the expected rate, and writes down why."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.datalist import entries, read, write
from common.data.phantom import prepare_phantom, virtual_patient
from common.data.volumes import scale_intensity
from common.errors import TskdError
from common.synthesis import RandomFeatures, SyntheticFolder, gate, load_images
from common.synthesis.memorisation import share

COPIES = 6


def plant(folder: Path, images: torch.Tensor, dataset_file: Path) -> Path:
    synthetic = SyntheticFolder(folder, len(images), {"model": "m"})
    synthetic.write(range(len(images)), images)
    synthetic.finish(dataset_file)
    return folder


@pytest.fixture(scope="module")
def new_patients() -> torch.Tensor:
    """Slices of virtual patients that are in no list of the cohort."""
    volumes = [scale_intensity(virtual_patient(1, number, 64, 6)[0]) for number in range(8)]
    return torch.from_numpy(np.concatenate([volume.transpose(2, 0, 1) for volume in volumes]))[:, None]


@pytest.fixture(scope="module")
def judged(cohort, new_patients, tmp_path_factory):
    """A folder with six altered copies of training images, then images of new patients, after the gate."""
    copies = load_images(entries(cohort, "transfer")[:COPIES], 64)[0]
    copies[1] = copies[1].flip(1)
    copies[2] = copies[2] * 0.7 + 0.2
    copies[3] = (copies[3] + 0.05 * torch.randn(1, 64, 64, generator=torch.manual_seed(0))).clamp(0, 1)
    copies[4] = copies[4].roll(3, 1)
    folder = tmp_path_factory.mktemp("judged")
    plant(folder, torch.cat([copies, new_patients]), cohort)
    return folder, gate(folder, cohort, quantile=0.95)


def test_copies_are_left_out_and_named_with_their_twin(judged, cohort):
    folder, report = judged
    rows = list(csv.DictReader((folder / "memorisation.csv").open()))
    assert [row["flagged"] for row in rows[:COPIES]] == ["yes"] * COPIES
    assert [row["training_case"] for row in rows[:COPIES]] == [e["case"] for e in entries(cohort, "transfer")[:COPIES]]
    assert all(float(row["similarity"]) > float(row["threshold"]) for row in rows[:COPIES])
    listed = {entry["case"] for entry in read(folder / "dataset.json")["unlabelled"]}
    assert listed == {f"synthetic_{row['synthetic']}" for row in rows if row["flagged"] == "no"}
    assert report["synthetic"]["flagged"] == len(rows) - len(listed)


def test_new_patients_pass_at_the_rate_of_the_quantile(judged, new_patients):
    _, report = judged
    false_alarms = report["synthetic"]["flagged"] - COPIES
    assert false_alarms <= 0.15 * len(new_patients)
    low, _ = report["held_out"]["interval"]
    assert low <= 0.05


def test_report_and_provenance_agree(judged):
    folder, report = judged
    assert json.loads((folder / "memorisation.json").read_text()) == report
    found = read(folder / "dataset.json")["provenance"]["memorisation"]
    assert {key: report[key] for key in found} == found
    assert report["training_groups"] == 12
    assert report["held_out"]["images"] == 12
    # 16 pairs, 4 a row, each picture 128 x 64 with a line of text
    assert Image.open(folder / "memorisation.png").size == (4 * 130, 4 * 78)


def test_features_flag_in_addition(cohort, new_patients, tmp_path):
    copies = load_images(entries(cohort, "transfer")[:3], 64)[0]
    folder = plant(tmp_path, torch.cat([copies, new_patients[:9]]), cohort)
    report = gate(folder, cohort, quantile=0.95, features=RandomFeatures())
    rows = list(csv.DictReader((folder / "memorisation.csv").open()))
    assert [float(row["feature_similarity"]) for row in rows[:3]] == pytest.approx([1.0] * 3, abs=1e-3)
    either = [
        float(row["similarity"]) > report["threshold"] or float(row["feature_similarity"]) > report["feature_threshold"]
        for row in rows
    ]
    assert [row["flagged"] == "yes" for row in rows] == either
    assert report["features"] == "random convolutions (seed 0) at 64 px"
    alone = gate(folder, cohort, quantile=0.975)
    assert report["threshold"] == pytest.approx(alone["threshold"])  # each comparison has half of the 5%
    assert alone["features"] is None


def test_nothing_but_copies_is_an_error_after_the_report(cohort, tmp_path):
    folder = plant(tmp_path, load_images(entries(cohort, "transfer")[:3], 64)[0], cohort)
    with pytest.raises(TskdError, match="all 3 flagged"):
        gate(folder, cohort)
    assert (folder / "memorisation.csv").exists()
    assert read(folder / "dataset.json")["unlabelled"] == []


def test_one_patient_gives_no_threshold(cohort, new_patients, tmp_path):
    data = read(cohort)
    for name in ("training", "validation"):
        for entry in data[name]:
            entry.update({key: str(cohort.parent / entry[key]) for key in ("image", "label")})
    data["training"] = [entry for entry in data["training"] if entry["group"] == data["training"][0]["group"]]
    write(tmp_path / "one.json", data)
    folder = plant(tmp_path / "images", new_patients[:2], cohort)
    with pytest.raises(TskdError, match="at least two patients"):
        gate(folder, tmp_path / "one.json")


def test_the_same_patient_under_two_names_is_warned_of(cohort, new_patients, tmp_path, caplog):
    dataset_file = prepare_phantom(tmp_path / "data", 3, 0, 32, 3, 0, 0)
    data = read(dataset_file)
    for entry in list(data["training"]):
        twin = Path(entry["image"]).with_suffix(".copy.png")
        (dataset_file.parent / twin).write_bytes((dataset_file.parent / entry["image"]).read_bytes())
        data["unlabelled"].append(
            {"image": str(twin), "group": "again " + entry["group"], "case": "again " + entry["case"]}
        )
    write(dataset_file, data)
    gate(plant(tmp_path / "images", new_patients[:2], dataset_file), dataset_file)
    assert "listed under several groups" in caplog.text


def test_interval_is_wilsons():
    found = share(torch.tensor([True] * 3 + [False] * 17))
    n, p, z = 20, 3 / 20, 1.959964
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert found["interval"] == pytest.approx([(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)])
    assert (found["images"], found["flagged"], found["share"]) == (20, 3, 0.15)
