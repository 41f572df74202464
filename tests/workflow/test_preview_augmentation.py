"""The picture of augmented samples: of the config's own augmentation, outlines moved with the images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tskd.cli import main
from tskd.errors import TskdError
from tskd.workflow import preview_augmentation
from tskd.workflow.preview_augmentation import Preview, write_preview

STILL = dict.fromkeys(("rotate", "scale", "translate", "shear", "elastic", "gamma", "brightness", "noise"), 0.0)
STILL |= dict.fromkeys(("exposure", "blur", "contrast", "low_resolution"), 0.0)


def shown(preview: Preview, target: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The samples that are drawn: the images as they are, then four augmented batches."""
    drawn: list[dict[str, torch.Tensor]] = []
    draw = preview_augmentation._draw

    def noting(preview: Preview, samples: list[dict[str, torch.Tensor]], path: Path) -> None:
        drawn.extend(samples)
        draw(preview, samples, path)

    monkeypatch.setattr(preview_augmentation, "_draw", noting)
    write_preview(preview, target)
    return drawn


def test_sixteen_samples_of_the_configs_augmentation(cohort, tmp_path, monkeypatch):
    changes = {"image_size": 32, **{f"augmentation#{key}": value for key, value in STILL.items()}}
    plain, *samples = shown(Preview(cohort, overrides=changes), tmp_path / "a.png", monkeypatch)
    assert sum(len(sample["image"]) for sample in samples) == 16
    for sample in samples:  # an augmentation of nothing: the images themselves
        assert torch.equal(sample["label"], plain["label"])
        assert torch.allclose(sample["image"], plain["image"].clamp(0, 1), atol=1e-5)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.asarray(picture).std() > 0
    modality = {"image_size": 32, "augmentation#modality": "dermoscopy"}
    plain, *samples = shown(Preview(cohort, overrides=modality), tmp_path / "b.png", monkeypatch)
    assert not any(torch.equal(sample["label"], plain["label"]) for sample in samples)
    other = Preview(cohort, teacher=True, overrides=modality, seed=1)
    assert not torch.equal(shown(other, tmp_path / "c.png", monkeypatch)[1]["image"], samples[0]["image"])


def test_semi_shows_its_strong_view(cohort, tmp_path, monkeypatch):
    weak = {"image_size": 32, "augmentation#modality": "plain"}
    semi = ("distill", "averaged", "joint", "semi")
    strong = shown(Preview(cohort, overlays=semi, overrides=weak), tmp_path / "s.png", monkeypatch)[1]
    usual = shown(Preview(cohort, overrides=weak), tmp_path / "u.png", monkeypatch)[1]
    assert torch.equal(strong["label"], usual["label"])  # the strong view moves nothing
    assert not torch.equal(strong["image"], usual["image"])


def test_an_overlay_that_does_not_exist_is_named(cohort, tmp_path, capsys):
    with pytest.raises(TskdError, match=r"overlay: expected a config of student_segmentation, found no .*sem\.json"):
        write_preview(Preview(cohort, overlays=["sem"]), tmp_path / "a.png")
    command = ["preview-augmentation", str(cohort.parent), "--output", str(tmp_path / "a.png"), "--image-size", "32"]
    assert main([*command, "--set", "augmentation#rotat=3"]) == 2
    assert "rotat" in capsys.readouterr().err
    assert main([*command, "--set", "augmentaton#rotate=3"]) == 2
    assert "augmentaton#rotate: no such key; close names: augmentation" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
