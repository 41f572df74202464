"""The gate catches planted copies, lets new patients pass at the expected rate, and writes down why."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tskd.data.checks import check
from tskd.data.datalist import entries, read, write
from tskd.data.io.intensity import PERCENTILES
from tskd.data.phantom.cohort import prepare_phantom, virtual_patient
from tskd.errors import TskdError
from tskd.synthesis import RandomFeatures, SyntheticFolder, WarpedLabels, gate, load_images
from tskd.synthesis.contact_sheet import contact_sheet, read_image
from tskd.synthesis.folder import publish
from tskd.synthesis.memorisation.correlation import max_cosine_similarity, pixel_descriptor
from tskd.synthesis.memorisation.gate import flagged_share
from tskd.synthesis.memorisation.gate_report import pairs
from tskd.synthesis.memorisation.similarity import Descriptors, Limits, Verdict, compare, quantile_interval

COPIES = 6


def plant(folder: Path, images: torch.Tensor) -> Path:
    synthetic = SyntheticFolder(folder, len(images), {"model": "m"})
    synthetic.write(range(len(images)), images)
    return folder


@pytest.fixture(scope="module")
def new_patients() -> torch.Tensor:
    """Slices of virtual patients that are in no list of the cohort."""
    volumes = [PERCENTILES.scale(virtual_patient(1, number, 64, 6)[0]) for number in range(8)]
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
    plant(folder, torch.cat([copies, new_patients]))
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


def drawn_of(cohort, labels, number):
    """Return the training entry of a label map, and its image warped alike."""
    (entry,) = [entry for entry in entries(cohort, "transfer") if entry["image"] == labels.source(number)]
    return entry, labels.warped(number, load_images([entry], 64)[0][0])


@pytest.mark.parametrize("budget", [None, "4 patients"])  # of the second the labelled images are not the first ones
def test_a_copy_warped_as_its_label_map_is_found(cohort, new_patients, budget, tmp_path):
    """What a model that draws to label maps would do, and what shifts and flips do not undo."""
    labels = WarpedLabels(cohort, 64, num_labelled=budget, rotate=20.0, scale=0.3)
    assert {labels.source(k) for k in range(200)} <= {e["image"] for e in entries(cohort, "labelled", budget)}
    drawn = [drawn_of(cohort, labels, k) for k in range(6)]
    folder = plant(tmp_path, torch.cat([torch.stack([copy for _, copy in drawn]), new_patients]))
    plain = gate(folder, cohort, quantile=0.99)
    report = gate(folder, cohort, quantile=0.99, labels=labels)
    rows = list(csv.DictReader((folder / "memorisation.csv").open()))
    assert [row["flagged"] for row in rows[:6]] == ["yes"] * 6
    assert [row["training_case"] for row in rows[:6]] == [entry["case"] for entry, _ in drawn]
    assert all(float(row["similarity"]) > 0.95 for row in rows[:6])
    assert plain["synthetic"]["flagged"] < report["synthetic"]["flagged"] <= 6 + 0.1 * len(new_patients)
    warped = report["copies"].pop("warped as its label map, noise: sigma 0.1")
    assert warped["images"] == 30
    assert warped["flagged"] >= 29
    assert report["copies"] == plain["copies"]


def test_the_control_group_is_judged_by_the_rule_of_images_drawn_to_label_maps(cohort, new_patients, tmp_path):
    """An image of the validation list that is the warped training image it stands beside is an alarm."""
    labels = WarpedLabels(cohort, 64, rotate=20.0, scale=0.3)
    data, folder = read(cohort), cohort.parent
    for entry in (entry for name in ("training", "validation", "test") for entry in data[name]):
        entry.update({key: str(folder / entry[key]) for key in ("image", "label")})
    image = drawn_of(cohort, labels, 0)[1]
    Image.fromarray((image[0].T.numpy() * 255).astype(np.uint8)).save(tmp_path / "warped.png")
    data["validation"] = [{**data["training"][0], "image": str(tmp_path / "warped.png"), "group": "x", "case": "x"}]
    write(tmp_path / "dataset.json", data)
    planted = plant(tmp_path / "images", new_patients[:4])
    assert gate(planted, tmp_path / "dataset.json", copies=0)["held_out"]["flagged"] == 0
    assert gate(planted, tmp_path / "dataset.json", copies=0, labels=labels)["held_out"]["flagged"] == 1


def test_new_patients_pass_at_about_the_rate_of_the_quantile(tmp_path):
    """Over cohorts: one threshold of 12 patients is uncertain, and its report says so."""
    shares, reports = [], []
    volumes = [PERCENTILES.scale(virtual_patient(100, number, 64, 6)[0]) for number in range(20)]
    images = torch.from_numpy(np.concatenate([volume.transpose(2, 0, 1) for volume in volumes]))[:, None]
    for seed in range(10, 14):
        cohort = prepare_phantom(
            tmp_path / f"{seed}", num_patients=15, image_size=64, num_slices=6, num_validation=1, num_test=2, seed=seed
        )
        reports.append(gate(plant(tmp_path / f"{seed} new", images), cohort, quantile=0.95, copies=0))
        shares.append(reports[-1]["synthetic"]["share"])
    assert 0.02 < np.mean(shares) < 0.12
    for report in reports:
        low, high = report["threshold_interval"]
        assert 0.3 < low < report["threshold"] <= high < 1


def test_a_threshold_of_few_images_is_warned_of(cohort, new_patients, tmp_path, caplog):
    folder = plant(tmp_path, new_patients[:2])
    gate(folder, cohort, quantile=0.9, copies=0)
    assert "several times as often" not in caplog.text
    report = gate(folder, cohort, quantile=0.99, copies=0, features=RandomFeatures())
    assert "the 0.995 quantile of 72 images of 12 patients, so that fewer than 5" in caplog.text
    assert (report["quantile"], report["level"]) == (0.99, 0.995)


def test_the_interval_of_a_quantile_draws_patients_and_not_images():
    alike = np.repeat([0.1, 0.2, 0.3, 0.9], 50)  # four patients with 50 images each
    low, high = quantile_interval(alike, np.repeat(list("abcd"), 50), 0.9)
    assert (low, high) == (pytest.approx(0.2, abs=0.11), 0.9)
    low, high = quantile_interval(np.linspace(0, 1, 200), [str(k) for k in range(200)], 0.9)
    assert 0.8 < low < 0.9 < high < 0.97


def test_a_picture_of_two_patients_does_not_switch_the_gate_off(cohort, new_patients, tmp_path, caplog):
    data, folder = read(cohort), cohort.parent
    for entry in (entry for name in ("training", "validation", "test") for entry in data[name]):
        entry.update({key: str(folder / entry[key]) for key in ("image", "label")})
    first = data["training"][0]
    (tmp_path / "again.png").write_bytes(Path(first["image"]).read_bytes())
    data["unlabelled"] = [{"image": str(tmp_path / "again.png"), "group": "somebody else", "case": "again"}]
    write(tmp_path / "dataset.json", data)
    copies = load_images(entries(cohort, "transfer")[1:4], 64)[0].flip(2) * 0.8
    folder = plant(tmp_path / "images", torch.cat([copies, new_patients]))
    # the threshold is the largest similarity: that of the duplicate, if it counted
    report = gate(folder, tmp_path / "dataset.json", quantile=1.0, copies=0)
    rows = list(csv.DictReader((folder / "memorisation.csv").open()))
    assert [row["flagged"] for row in rows[:3]] == ["yes"] * 3
    assert report["threshold"] == pytest.approx(gate(folder, cohort, quantile=1.0, copies=0)["threshold"])
    assert report["duplicates_across_patients"] == 1
    assert f"{first['case']} and" in caplog.text or f"and {first['case']}" in caplog.text


def test_an_exact_copy_is_flagged_whatever_the_threshold():
    training = Descriptors(
        pixel_descriptor(torch.rand(4, 1, 64, 64, generator=torch.manual_seed(0))), None, list("abcd"), list("aabb")
    )
    assert compare(training, training, Limits(0.999, None, []), 3).flagged.tolist() == [True] * 4


def test_images_without_structure_are_left_out_and_say_why(cohort, new_patients, tmp_path):
    folder = plant(tmp_path, torch.cat([torch.full((2, 1, 64, 64), 0.4), new_patients[:6]]))
    report = gate(folder, cohort, copies=0)
    rows = list(csv.DictReader((folder / "memorisation.csv").open()))
    assert [(row["flagged"], row["reason"]) for row in rows[:2]] == [("yes", "no structure")] * 2
    assert [row["reason"] for row in rows[2:]] == ["pixels" if row["flagged"] == "yes" else "" for row in rows[2:]]
    assert report["structureless"] == 2
    check(folder / "dataset.json", labelled=False)


def test_only_the_images_asked_for_are_listed(cohort, new_patients, tmp_path):
    folder = plant(tmp_path, new_patients[:8])
    assert gate(folder, cohort, num_images=3, copies=0)["synthetic"]["images"] == 3
    assert {entry["case"] for entry in entries(folder / "dataset.json", "transfer")} <= {
        f"synthetic_{k:06d}" for k in range(3)
    }
    (folder / "images" / "000001.png").unlink()
    with pytest.raises(TskdError, match=r"1 of them missing, such as 000001\.png"):
        gate(folder, cohort, num_images=3, copies=0)


def test_the_contact_sheet_shows_what_is_listed(judged):
    folder, _ = judged
    kept = [entry["image"] for entry in entries(folder / "dataset.json", "transfer")]
    assert len(kept) < len(list((folder / "images").iterdir()))
    shown = np.asarray(contact_sheet([read_image(path) for path in kept[:64]]))
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "contact_sheet.png")), shown)


def test_volumes_among_the_training_images_are_refused(cohort, new_patients, tmp_path):
    data = read(cohort)
    for entry in (entry for name in ("training", "validation", "test") for entry in data[name]):
        entry.update({key: str(cohort.parent / entry[key]) for key in ("image", "label")})
    volume = {"image": data["test"].pop()["image"], "group": "x", "case": "x"}
    write(tmp_path / "dataset.json", {**data, "unlabelled": [volume]})
    folder = plant(tmp_path / "images", new_patients[:2])
    with pytest.raises(TskdError, match=r"expected 2-D images .*found 1 volumes such as .*\.nii\.gz"):
        gate(folder, tmp_path / "dataset.json")


def test_what_the_features_flag_is_shown_with_the_features_twin(cohort, new_patients, tmp_path):
    """Features that only see the mean: an image is like the one of the same brightness, whatever it shows."""

    class Brightness(torch.nn.Module):
        def forward(self, images):
            dark = images.mean((1, 2, 3))
            return torch.stack([torch.cos(dark * 6), torch.sin(dark * 6)], dim=1)

    folder = plant(tmp_path, new_patients[:20])
    report = gate(folder, cohort, quantile=0.5, copies=0, features=Brightness())
    rows = list(csv.DictReader((folder / "memorisation.csv").open()))
    by_features = [row for row in rows if "features" in row["reason"]]
    assert by_features
    real_images = load_images(entries(cohort, "transfer"), 64)[0]
    images = torch.stack([read_image(folder / "images" / f"{row['synthetic']}.png") for row in rows])
    twins = max_cosine_similarity(Brightness()(images), Brightness()(real_images))[1]
    assert [row["feature_twin"] for row in rows] == [entries(cohort, "transfer")[k]["case"] for k in twins.tolist()]
    memorisation = read(folder / "dataset.json")["provenance"]["memorisation"]
    assert (memorisation["features"], memorisation["feature_threshold"]) == ("Brightness", report["feature_threshold"])

    limits = Limits(0.9, 0.99, [])
    real = [{"image": item["image"], "case": "", "group": ""} for item in entries(cohort, "transfer")[:3]]
    drawn = [{"image": str(folder / "images/000000.png"), "case": "", "group": ""}] * 2
    no = torch.tensor([False, False])
    verdict = Verdict(
        torch.tensor([0.91, 0.0]), torch.tensor([0, 0]), torch.tensor([0.0, 1.0]), torch.tensor([1, 2]), (no, no), no
    )
    sheet = np.asarray(pairs(drawn, real, verdict, limits, 1))
    for position, twin in enumerate([2, 0]):  # the second one exceeds its threshold by more, in features
        tile = sheet[:64, position * 130 + 64 : position * 130 + 128]
        np.testing.assert_array_equal(tile, np.asarray(Image.open(real[twin]["image"])))


def test_report_and_provenance_agree(judged):
    folder, report = judged
    assert json.loads((folder / "memorisation.json").read_text()) == report
    memorisation = read(folder / "dataset.json")["provenance"]["memorisation"]
    assert {key: report[key] for key in memorisation} == memorisation
    assert report["training_groups"] == 12
    assert report["held_out"]["images"] == 12
    assert report["held_out"]["patients"] == 2
    # 16 pairs, 4 a row, each picture 128 x 64 with a line of text
    assert Image.open(folder / "memorisation.png").size == (4 * 130, 4 * 78)


def test_features_flag_in_addition(cohort, new_patients, tmp_path):
    copies = load_images(entries(cohort, "transfer")[:3], 64)[0]
    folder = plant(tmp_path, torch.cat([copies, new_patients[:9]]))
    report = gate(folder, cohort, quantile=0.95, copies=0, features=RandomFeatures())
    rows = list(csv.DictReader((folder / "memorisation.csv").open()))
    assert [float(row["feature_similarity"]) for row in rows[:3]] == pytest.approx([1.0] * 3, abs=1e-3)
    either = [
        float(row["similarity"]) > report["threshold"] or float(row["feature_similarity"]) > report["feature_threshold"]
        for row in rows
    ]
    assert [row["flagged"] == "yes" for row in rows] == either
    assert report["features"] == "random convolutions (seed 0) at 64 px"
    alone = gate(folder, cohort, quantile=0.975, copies=0)
    assert report["threshold"] == pytest.approx(alone["threshold"])  # each comparison has half of the 5%
    assert alone["features"] is None


def test_nothing_but_copies_is_an_error_after_the_report(cohort, tmp_path):
    folder = plant(tmp_path, load_images(entries(cohort, "transfer")[:3], 64)[0])
    publish(folder, cohort, range(3), {})  # the list of an earlier gate
    with pytest.raises(TskdError, match="all 3 flagged"):
        gate(folder, cohort, copies=0)
    assert (folder / "memorisation.csv").exists()
    assert not (folder / "dataset.json").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("quantile", 0.0), ("quantile", 1.5), ("resolution", 0), ("max_shift", 17), ("max_shift", -1), ("max_real", 0)],
)
def test_a_setting_out_of_range(key, value, cohort, tmp_path):
    with pytest.raises(TskdError, match=f"gate#{key}: expected .*, found {value}"):
        gate(tmp_path, cohort, **{key: value})


def test_a_negative_number_of_copies(cohort, tmp_path):
    with pytest.raises(TskdError, match=r"gate#copies: expected 0 or more .*, found -1"):
        gate(tmp_path, cohort, copies=-1)


def test_no_images_are_no_order(tmp_path):
    with pytest.raises(TskdError, match="num_images: expected 1 or more, found 0"):
        SyntheticFolder(tmp_path, 0, {})


def test_one_patient_gives_no_threshold(cohort, new_patients, tmp_path):
    data = read(cohort)
    for name in ("training", "validation"):
        for entry in data[name]:
            entry.update({key: str(cohort.parent / entry[key]) for key in ("image", "label")})
    data["training"] = [entry for entry in data["training"] if entry["group"] == data["training"][0]["group"]]
    write(tmp_path / "one.json", data)
    folder = plant(tmp_path / "images", new_patients[:2])
    with pytest.raises(TskdError, match="at least two patients"):
        gate(folder, tmp_path / "one.json")
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock.0",
        "images",
        "sampling.json",
    ]  # no list of unchecked images


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
    gate(plant(tmp_path / "images", new_patients[:2]), dataset_file, copies=0)
    assert "listed under several groups" in caplog.text


def test_interval_is_wilsons():
    summary = flagged_share(torch.tensor([True] * 3 + [False] * 17))
    n, p, z = 20, 3 / 20, 1.959964
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert summary["interval"] == pytest.approx([(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)])
    assert (summary["images"], summary["flagged"], summary["share"]) == (20, 3, 0.15)
