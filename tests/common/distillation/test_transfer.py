"""Which images are labelled, unlabelled and synthetic, what the student sees of them, and in which numbers."""

from pathlib import Path

import pytest
import torch

from common.data import write
from common.distillation import FillLabeld, batch_counts, transfer_entries
from common.errors import TskdError

LABELS = {"0": "background", "1": "liver"}


def dataset(path: Path, training: int, unlabelled: int, source: str = "a clinic") -> Path:
    name = path.parent.name

    def entry(number: int, label: bool) -> dict[str, str]:
        case = f"{name}_{number}"
        return {"image": f"{case}.png", "group": name, "case": case} | ({"label": f"{case}_l.png"} if label else {})

    data = {
        "name": name, "modality": "MR", "channels": 1, "labels": LABELS, "validation": [], "test": [],
        "training": [entry(i, True) for i in range(training)],
        "unlabelled": [entry(i, False) for i in range(training, training + unlabelled)],
        "provenance": {"source": source},
    }  # fmt: skip
    write(path, data)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [
        dataset(tmp_path / "drawn" / "dataset.json", 0, 3, "synthetic: sampled from a diffusion model"),
        dataset(tmp_path / "study" / "dataset.json", 6, 2),
        dataset(tmp_path / "archive" / "dataset.json", 1, 4),
    ]


def parts(data: list[dict[str, str]]) -> list[str]:
    return [f"{entry['part']} {entry['case']}" for entry in data]


def test_parts_one_after_the_other(files):
    data = transfer_entries(files, files[1], 2)
    assert parts(data) == [
        "labelled study_0", "labelled study_1",
        *(f"unlabelled study_{i}" for i in range(2, 8)), *(f"unlabelled archive_{i}" for i in range(5)),
        *(f"synthetic drawn_{i}" for i in range(3)),
    ]  # fmt: skip
    assert not any("label" in entry for entry in data)


def test_only_the_budgets_labels_are_seen(files):
    data = transfer_entries(files, files[1], 2, with_labels=True)
    assert [entry["case"] for entry in data if "label" in entry] == ["study_0", "study_1"]
    assert data[0]["label"] == str(files[1].parent / "study_0_l.png")
    assert not any("label" in entry for entry in transfer_entries(files, files[1], 0, with_labels=True))
    # a data set whose images are not learned from has no labelled part
    assert {entry["part"] for entry in transfer_entries(files[:1], files[1])} == {"synthetic"}


def test_counts_of_a_batch(files):
    data = transfer_entries(files, files[1], 2)
    assert batch_counts(data, {"labelled": 2, "unlabelled": 4, "synthetic": 2}, 8) == [(2, 2), (11, 4), (3, 2)]
    assert batch_counts(data, {"synthetic": 1, "labelled": 1}, 2) == [(2, 1), (11, 0), (3, 1)]
    assert batch_counts(data, None, 8) is None


@pytest.mark.parametrize("ratio", [{"labelled": 2, "other": 6}, {"labelled": 4}, {"labelled": 9, "unlabelled": -1}])
def test_numbers_that_do_not_fit(files, ratio):
    with pytest.raises(TskdError, match=r"batch_ratio: .* sum to the batch_size 8, found"):
        batch_counts(transfer_entries(files, files[1], 2), ratio, 8)


def test_a_part_without_images(files):
    data = transfer_entries(files[1:], files[1], 2)
    with pytest.raises(TskdError, match="found none that are synthetic"):
        batch_counts(data, {"labelled": 2, "synthetic": 6}, 8)


def test_missing_labels_say_so():
    image = torch.rand(3, 5, 7)
    filled = FillLabeld()({"image": image})
    assert filled["label"].shape == (1, 5, 7)
    assert filled["label"].dtype == torch.uint8
    assert bool((filled["label"] == 255).all())
    label = torch.zeros(1, 5, 7)
    assert FillLabeld()({"image": image, "label": label})["label"] is label
