"""A teacher that is far behind the student on the validation list is not asked."""

import json
import logging
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from tskd.distillation import ratio_by_validation
from tskd.train_log import METRIC


def model(run: Path, *dice: float) -> Path:
    """The model.pt of a training whose log has these validation Dice, and the log."""
    run.mkdir()
    rows = [f"{epoch},{epoch * 50},{METRIC},{value}\n" for epoch, value in enumerate(dice, start=1)]
    (run / "train_log.csv").write_text("epoch,step,name,value\n" + "".join(rows))
    return run / "models" / "model.pt"


@pytest.mark.parametrize(("teacher", "asked"), [(0.9, True), (0.75, True), (0.701, True), (0.69, False), (0.1, False)])
def test_the_teacher_is_asked_unless_it_is_far_behind(tmp_path, caplog, teacher, asked):
    student, teacher_model = model(tmp_path / "student", 0.2, 0.8), model(tmp_path / "teacher", 0.9, teacher)
    with caplog.at_level(logging.WARNING):
        assert ratio_by_validation("agreement", teacher_model, str(student)) == ("agreement" if asked else 1.0)
    assert (f"validation Dice ({teacher:.3f}) is more than 0.1 below" in caplog.text) == (not asked)
    assert ("starts from (0.800)" in caplog.text) == (not asked)


def test_the_epoch_that_was_kept_counts(tmp_path):
    student, teacher = model(tmp_path / "student", 0.8), model(tmp_path / "teacher", 0.9, 0.5)
    for keep, ratio in (("last", 1.0), ("best", "agreement")):
        (tmp_path / "teacher/versions.json").write_text(json.dumps({"settings": {"keep": keep}}))
        assert ratio_by_validation("agreement", teacher, student) == ratio


def test_the_recipe_takes_it():
    configs = Path(__file__).resolve().parents[3] / "bundles/student_segmentation/configs"
    recipe = ("train", "distill", "lite_unet", "averaged", "joint", "semi")
    config = ConfigParser.load_config_files([str(configs / f"{name}.json") for name in recipe])
    assert config["train"]["trainer"]["prepare_batch"]["ratio"] == "@ratio"
    assert "ratio_by_validation(@pseudo_ratio, @teacher_model, @init_weights)" in config["ratio"]


def test_a_number_stays(tmp_path):
    student, teacher = model(tmp_path / "student", 0.8), model(tmp_path / "teacher", 0.1)
    assert ratio_by_validation(0.3, teacher, student) == 0.3


def test_where_one_is_unknown_the_teacher_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(model(tmp_path / "here", 0.9).parent.parent)  # a log that has nothing to do with encoder.pth
    student, teacher = model(tmp_path / "student", 0.8), model(tmp_path / "teacher", 0.1)
    silent = model(tmp_path / "silent")
    for pair in ((None, student), (teacher, None), (silent, student), (teacher, silent), (teacher, "encoder.pth")):
        assert ratio_by_validation("agreement", *pair) == "agreement"
