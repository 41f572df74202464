"""Measures agree with their formulas, and order sets of images as they should."""

import csv
import json

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from monai.utils import path_to_sqlite_uri

from tskd.data.datalist import entries, read, write
from tskd.networks import build_sam, load_pretrained
from tskd.state import save_weights
from tskd.synthesis import (
    EncoderFeatures,
    RandomFeatures,
    SyntheticFolder,
    compare,
    diversity,
    frechet_distance,
    kernel_distance,
    load_images,
    measure,
    precision_recall,
    project,
    teacher_features,
)
from tskd.synthesis.folder import publish


def normal(count, mean=0.0, size=8, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) + mean


def test_kernel_distance_is_the_formula():
    a, b = normal(6).double().numpy(), normal(7, 0.5, seed=1).double().numpy()

    def k(x, y):
        return (x @ y / 8 + 1) ** 3

    expected = (
        np.mean([k(a[i], a[j]) for i in range(6) for j in range(6) if i != j])
        + np.mean([k(b[i], b[j]) for i in range(7) for j in range(7) if i != j])
        - 2 * np.mean([k(x, y) for x in a for y in b])
    )
    assert kernel_distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected)


def test_kernel_distance_is_zero_in_the_mean_for_one_distribution_and_grows_with_the_shift():
    same = [kernel_distance(normal(50, seed=2 * k), normal(50, seed=2 * k + 1)) for k in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 40**0.5
    assert min(same) < 0
    shifted = [kernel_distance(normal(200, seed=90), normal(200, mean, seed=91)) for mean in (0.0, 0.5, 1.0)]
    assert shifted == sorted(shifted)


def test_frechet_distance_of_shifted_samples_is_the_squared_shift():
    sample = normal(500)
    assert frechet_distance(sample, sample) == pytest.approx(0, abs=1e-3)
    assert frechet_distance(sample, sample + 0.7) == pytest.approx(8 * 0.49, rel=1e-3)


def test_precision_and_recall_tell_quality_from_variety():
    real = normal(300)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 50) == (0.0, 0.0)
    precision, recall = precision_recall(real, normal(300, seed=1) * 0.05)  # good but all alike
    assert precision > 0.95
    assert recall < 0.2
    precision, recall = precision_recall(real, normal(300, seed=1) * 5)  # varied but bad
    assert precision < 0.2


def test_fid_is_not_given_where_it_has_no_meaning():
    assert compare(normal(8), normal(8, seed=1))["fid"] is None
    assert compare(normal(9), normal(9, seed=1))["fid"] is not None


def test_fid_is_given_where_there_are_fewer_images_than_features_and_compares_over_sizes():
    real, shifted = normal(400, size=176), normal(400, 0.5, size=176, seed=1)
    near = compare(real[:100], normal(100, size=176, seed=2))["fid"]
    far = compare(real[:100], shifted[:100])["fid"]
    assert 0 < near < far - 10
    assert compare(real[:64], shifted[:64])["fid"] is None
    # the shift of 0.5 in 176 dimensions is seen in 64 of them, whatever the size of the sample
    assert compare(real, shifted)["fid"] == pytest.approx(64 * 0.25, rel=0.5)
    directions = project(torch.eye(176)).T
    torch.testing.assert_close(directions @ directions.T, torch.eye(64, dtype=torch.float64))
    assert torch.equal(project(normal(9)), normal(9))


def test_random_features_are_fixed_and_take_grey_and_colour():
    images = torch.rand(3, 1, 40, 30)
    first = RandomFeatures()(images)
    assert torch.equal(first, RandomFeatures()(images.expand(-1, 3, -1, -1)))
    assert not torch.equal(first, RandomFeatures(seed=1)(images))
    assert first.shape == (3, 2 * (8 + 16 + 32 + 32))


def test_encoder_features_are_the_mean_embedding():
    class Teacher(torch.nn.Module):
        def forward_features(self, images):
            return {"embedding": images.repeat(1, 4, 1, 1) * torch.arange(1, 5)[:, None, None]}

    vectors = EncoderFeatures(Teacher(), resolution=8)(torch.full((2, 1, 16, 16), 0.5))
    assert vectors.tolist() == [[0.5, 1.0, 1.5, 2.0]] * 2


def test_held_out_patients_are_nearer_to_training_than_noise_is(cohort, tmp_path):
    training = load_images(entries(cohort, "transfer"), 64)[0]
    noise = torch.rand(30, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * training.mean() * 2
    reports = {}
    for name, images in {"noise": noise, "copies": training[:30]}.items():
        folder = SyntheticFolder(tmp_path / name, 30, {})
        folder.write(range(30), images)
        publish(folder.path, cohort, range(30), {"quantile": 0.99})
        reports[name] = measure(tmp_path / name, cohort, RandomFeatures(), tmp_path / f"{name}.json")
    assert json.loads((tmp_path / "noise.json").read_text()) == reports["noise"]
    report, copies = reports["noise"]["pairs"], reports["copies"]["pairs"]
    assert {name: values["images"] for name, values in report.items()} == {
        "synthetic": 30, "floor": 30, "other_patients": 30, "held_out": 12
    }  # fmt: skip
    assert report["synthetic"]["kid"] > 10 * abs(report["held_out"]["kid"])
    assert report["synthetic"]["recall"] == 0 < report["held_out"]["recall"]
    assert copies["synthetic"]["kid"] < 0.1 * report["synthetic"]["kid"]
    for pair in ("floor", "other_patients"):
        assert copies[pair] == report[pair]
        assert report[pair]["kid_lowest"] < report[pair]["kid"] < report[pair]["kid_highest"]
    assert report["floor"]["kid"] < report["other_patients"]["kid"]  # of the same patients, and of different ones
    assert copies["synthetic"]["kid"] < report["other_patients"]["kid"]

    class Scaled(RandomFeatures):
        def forward(self, images):
            return super().forward(images) * 50 + 3

    scaled = measure(tmp_path / "noise", cohort, Scaled(), tmp_path / "scaled.json")["pairs"]
    for pair, values in report.items():
        assert scaled[pair]["kid"] == pytest.approx(values["kid"], rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("slices", [3, 2])
def test_small_patients_shrink_no_sample_but_their_own(slices, cohort, tmp_path):
    data, training = read(cohort), entries(cohort, "transfer")
    groups = sorted({entry["group"] for entry in training})[:3]
    by_patient = {group: [entry for entry in training if entry["group"] == group] for group in groups}
    kept = by_patient[groups[0]][:6] + by_patient[groups[1]][:slices] + by_patient[groups[2]][:slices]
    listed = [{**entry, "group": "large"} if entry["group"] == groups[0] else entry for entry in kept]
    more = [{**entry, "group": "large"} for entry in training if entry["group"] not in groups][:6]
    write(tmp_path / "uneven.json", {**data, "training": [], "unlabelled": listed + more, "validation": [], "test": []})
    folder = SyntheticFolder(tmp_path / "copies", 12, {})
    folder.write(range(12), load_images(training[:12], 64)[0])
    publish(folder.path, cohort, range(12), {})
    pairs = measure(folder.path, tmp_path / "uneven.json", RandomFeatures(), tmp_path / "f.json")["pairs"]
    half = (12 + 2 * slices) // 2
    expected = {"synthetic": half, "floor": half} | ({"other_patients": 6} if slices == 3 else {})
    assert {name: values["images"] for name, values in pairs.items()} == expected


def test_numbers_are_the_same_as_json_as_a_table_and_in_mlflow(cohort, tmp_path):
    folder = SyntheticFolder(tmp_path / "copies", 12, {})
    folder.write(range(12), load_images(entries(cohort, "transfer")[:12], 64)[0])
    publish(folder.path, cohort, range(12), {"quantile": 0.99})
    uri = path_to_sqlite_uri(tmp_path / "mlruns.db")
    report = measure(folder.path, cohort, RandomFeatures(), tmp_path / "f.json", mlflow_uri=uri, experiment="toy")
    assert (report["modality"], report["features"]) == (
        read(cohort)["modality"],
        "random convolutions (seed 0) at 64 px",
    )
    assert report["fid_features"] == "at most 64 random orthonormal directions of the features (seed 0)"
    flat = {f"{pair}/{name}": value for pair, values in report["pairs"].items() for name, value in values.items()}
    rows = list(csv.DictReader((tmp_path / "f.csv").open()))
    assert {row["modality"] for row in rows} == {report["modality"]}
    table = {f"{row['pair']}/{row['measure']}": float(row["value"]) if row["value"] else None for row in rows}
    assert table == {name: value if value is None else pytest.approx(value, rel=1e-5) for name, value in flat.items()}
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {name: value for name, value in flat.items() if value is not None}


def test_diversity_falls_when_a_sample_repeats_itself():
    varied = normal(60)
    repeated = torch.cat([varied[:30], varied[:30] + 1e-3])
    assert diversity(repeated)["nearest_median"] < 0.01 < 0.5 < diversity(varied)["nearest_median"]
    assert diversity(torch.tensor([[0.0], [1.0], [4.0]])) == {"nearest_min": 1.0, "nearest_median": 1.0}


@pytest.mark.parametrize("high_res", [False, True])
def test_teacher_features_are_its_encoders_mean_embedding(tmp_path, high_res):
    torch.manual_seed(0)
    teacher, images = build_sam("mobile_sam", 3, 64, high_res_features=high_res).eval(), torch.rand(2, 1, 64, 64)
    save_weights(teacher, tmp_path / "model.pt")
    features = teacher_features("mobile_sam", tmp_path / "model.pt", 64)
    with torch.no_grad():
        torch.testing.assert_close(features(images), teacher.forward_features(images)["embedding"].mean((2, 3)))
    assert features.name == "mobile_sam encoder at 64 px, fine-tuned"


def test_features_of_the_foundation_model_as_it_is(shared):
    weights = shared / "weights" / "mobile_sam.pth"
    features = teacher_features("mobile_sam", weights, 64)
    stock, images = load_pretrained(build_sam("mobile_sam", 4, 64), weights).eval(), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(features(images), stock.forward_features(images)["embedding"].mean((2, 3)))
    assert features.name == "mobile_sam encoder at 64 px"
