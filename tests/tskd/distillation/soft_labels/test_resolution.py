"""What a grid of soft labels keeps of the truth: all of a large organ, little of a thin vessel; told at writing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tskd.data import write
from tskd.distillation import grid_for, tell_resolution
from tskd.distillation.soft_labels.resolution import truth_dice


def disc(size: int = 128, radius: float = 40) -> torch.Tensor:
    axis = torch.arange(size) - size / 2 + 0.5
    return ((axis[:, None] ** 2 + axis[None] ** 2) < radius**2).to(torch.uint8)


def lines(size: int = 128, every: int = 16) -> torch.Tensor:
    """Vessels one pixel wide."""
    label = torch.zeros(size, size, dtype=torch.uint8)
    label[:, ::every] = 1
    return label


def test_thin_structures_are_lost_where_large_ones_are_kept():
    assert truth_dice(disc(), (64, 64)) > 0.99
    assert truth_dice(lines(), (64, 64)) < 0.7
    both = torch.where(disc() > 0, torch.tensor(2, dtype=torch.uint8), lines())
    assert truth_dice(lines(), (32, 32)) < truth_dice(both, (32, 32)) < truth_dice(disc(), (32, 32))


@given(st.integers(2, 24), st.integers(2, 24), st.integers(0, 2**31))
def test_the_labels_own_grid_keeps_everything(height, width, seed):
    label = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (height, width), dtype=np.uint8))
    assert truth_dice(label, (height, width)) == truth_dice(label, (2 * height, 2 * width)) == 1.0
    assert 0 <= truth_dice(label, (max(height // 2, 1), max(width // 2, 1))) <= 1


def test_what_nobody_labelled_does_not_count():
    label = disc()
    hidden = label.clone()
    hidden[:20], label[:20] = 255, 0
    assert truth_dice(hidden, (32, 32)) == pytest.approx(truth_dice(label, (32, 32)), abs=0.02)
    assert truth_dice(torch.full((8, 8), 255, dtype=torch.uint8), (2, 2)) == 1.0


def folder(tmp_path: Path, label: torch.Tensor, logits: bool = True) -> tuple[Path, Path]:
    """Finished soft labels of 32 x 32 of a data set with one labelled image."""
    Image.fromarray(label.numpy()).save(tmp_path / "label.png")
    entry = {"image": "image.png", "label": "label.png", "group": "a", "case": "a"}
    content = {"name": "x", "modality": "fundus", "channels": 1, "labels": {"0": "background", "1": "vessel"}}
    write(tmp_path / "dataset.json", {**content, "training": [entry], "validation": [], "test": []})
    soft = tmp_path / "soft"
    soft.mkdir()
    shapes = {"logits": [2, 32, 32]} if logits else {"embedding": [256, 8, 8]}
    (soft / "manifest.json").write_text(json.dumps({"cases": {"a": {"image": "0", "shapes": shapes}}}))
    return soft, tmp_path / "dataset.json"


def test_a_grid_that_is_too_coarse_is_told_with_the_one_that_is_needed(tmp_path, caplog):
    soft, dataset = folder(tmp_path, lines())
    kept = tell_resolution(soft, dataset)
    assert "soft labels of 32 x 32 keep" in caplog.text
    assert "0.99 takes a grid of 128" in caplog.text
    found = json.loads((soft / "resolution.json").read_text())
    assert found == {"grid": [32, 32], "truth_dice": round(kept, 4), "grid_of_99_percent": 128}


def test_nothing_is_told_where_nothing_is_lost(tmp_path, caplog):
    soft, dataset = folder(tmp_path, disc(radius=60))
    assert tell_resolution(soft, dataset) > 0.99
    assert caplog.text == ""
    assert tell_resolution(soft, dataset, 0) is None
    assert tell_resolution(tmp_path / "unfinished", dataset) is None


def test_without_logits_there_is_nothing_to_measure(tmp_path):
    assert tell_resolution(*folder(tmp_path, lines(), logits=False)) is None


def test_the_grid_is_the_smallest_that_keeps_the_truth(tmp_path):
    _, dataset = folder(tmp_path, lines())
    assert grid_for(tmp_path / "new", dataset) == 128
    Image.fromarray(disc(radius=60).numpy()).save(tmp_path / "label.png")
    assert grid_for(tmp_path / "new", dataset) == 64
    Image.fromarray(lines(2048, every=4).numpy()).save(tmp_path / "label.png")
    assert grid_for(tmp_path / "new", dataset) is None
    assert grid_for(tmp_path / "new", dataset, 0) is None


@pytest.mark.parametrize("file", ["manifest.json", "manifest.0.json"])
def test_a_folder_that_is_begun_keeps_its_grid(tmp_path, file):
    soft, dataset = folder(tmp_path, lines())
    (soft / "manifest.json").unlink()
    (soft / file).write_text('{"cases": {}}')  # of a version that knew no grid
    assert grid_for(soft, dataset) is None
    (soft / file).write_text('{"cases": {}, "grid": 512}')
    assert grid_for(soft, dataset) == 512
