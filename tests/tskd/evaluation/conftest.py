"""Small finished runs for the tests of the report."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tskd.evaluation import MetricRow, write_rows
from tskd.evaluation.calibration import Calibration, calibration_sums
from tskd.evaluation.reliability import bin_rows, write_bins

ORGANS = ("liver", "spleen")
SKILL = {"scratch": 0.6, "teacher": 0.8, "student": 0.85}


def _write_run(folder: Path, method: str, budget: int = 80, seed: int = 0, patients: int = 7) -> Path:
    """A run folder with all its optional files; every patient has two cases of both organs."""
    rng = np.random.default_rng([len(method), budget, seed])
    rows, cases = [], {}
    folder.mkdir(parents=True)
    for patient in range(1, patients + 1):
        for part in "ab":
            case = f"{patient}_{part}"
            for organ in ORGANS:
                dice = float(np.clip(SKILL[method] - 8 / budget + rng.normal(0, 0.04), 0, 1))
                for metric, value in (("dice", dice), ("hd95", 20 * (1 - dice)), ("area_difference", 100 * dice - 70)):
                    key = ("phantom", str(budget), method, str(seed), str(patient), case, organ, metric)
                    rows.append(MetricRow(*key, value))
            cases[case] = {"group": str(patient), "unit": "pixel", "spacing": [1, 1], **_images(folder, case)}
    write_rows(folder / "metrics.csv", rows)
    (folder / "cases.json").write_text(json.dumps(cases))
    run = ("phantom", str(budget), method, str(seed))
    write_bins(folder / "calibration.csv", [r for c in cases for r in bin_rows((*run, c, c), _calibration(rng))])
    summary = {"tolerance_mm": 2.0, "labels": {"liver": {"absent_cases": 0}, "pancreas": {"absent_cases": 3}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "profile.json").write_text(json.dumps({"parameters": 5_900_000, "gmac": 2.5, "ms_per_image": 42}))
    (folder / "train").mkdir()
    versions = {"python": "3.11.9", "packages": {"torch": "2.13.0"}, "device": "cpu", "seconds": 3725.0}
    versions |= {"config_sha256": "0123456789abcdef", "config": ["train.json"]}
    settings = {"seed": seed, "dataset_file": "/home/someone/dataset.json"}
    (folder / "train" / "versions.json").write_text(json.dumps({**versions, "settings": settings}))
    evaluation = {"settings": {"network": "UNETR", "parameters": 5_900_000, "image_size": 128, "in_channels": 1}}
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "versions.json").write_text(json.dumps({**evaluation, "config": ["evaluate.json"]}))
    with open(folder / "train" / "train_log.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "step", "name", "value"])
        writer.writerows([epoch, 10 * epoch, "loss", 1 / epoch] for epoch in range(1, 6))
    return folder


def _calibration(rng: np.random.Generator) -> Calibration:
    """Of 200 pixels of three classes, each class as likely as its probability says."""
    prob = rng.dirichlet([1, 1, 1], size=200).T
    return calibration_sums(prob, (prob.cumsum(axis=0) < rng.random(200)).sum(axis=0))


def _images(folder: Path, case: str) -> dict[str, str]:
    """Files of one case: image, label and prediction."""
    label = np.zeros((24, 30), np.uint8)
    label[5:14, 6:20] = 1
    label[16:20, 8:12] = 2
    files = {}
    for name, array in (("image", label * 100), ("label", label), ("prediction", np.roll(label, 2, axis=0))):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / name / f"{case}.png")
        files[name] = str(folder / name / f"{case}.png")
    return files


def _write_dataset(folder: Path, name: str, section: str) -> Path:
    """A dataset.json of six colour images under `training` or `unlabelled`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    entries = []
    for index in range(6):
        Image.fromarray(rng.integers(0, 255, size=(16, 16, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        entry = {"image": f"{index}.png", "group": str(index // 2), "case": f"{name} {index}"}
        entries.append({**entry, "label": f"{index}.png"} if section == "training" else entry)
    data = {"name": name, "modality": "MR", "channels": 3, "labels": {"0": "background", "1": "liver"}}
    data |= {"training": [], "unlabelled": [], "validation": [], "test": [], "provenance": {"licence": "CC0"}}
    (folder / "dataset.json").write_text(json.dumps({**data, section: entries}))
    return folder / "dataset.json"


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Function (folder, method, budget=80, seed=0, patients=7) that writes a finished run."""
    return _write_run


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """Function (folder, name, section) that writes a dataset.json with its images."""
    return _write_dataset
