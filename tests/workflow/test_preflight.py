"""What is looked at before a study begins: all problems at once, in the words of its file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import forked
from tskd.cli import main
from tskd.data import read
from tskd.data.tint import COLOURS, blend, colour
from tskd.errors import TskdError
from tskd.workflow import check_study, read_yaml
from tskd.workflow.commands import TEACHER, merged_config
from tskd.workflow.costs import Costs, views
from tskd.workflow.measure import measure
from tskd.workflow.preflight import Preflight, preflight
from tskd.workflow.schema import WORKFLOW

TOY = Path(__file__).with_name("toy.yaml")


def look(**changes: Any) -> Preflight:
    config = read_yaml(TOY)
    config["datasets"]["phantom"] |= changes
    return preflight(check_study(config, "toy"), forked.environment(), measure=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in forked.environment().items():
        monkeypatch.setenv(name, value)


def test_an_example_that_nobody_has_edited_lists_all_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    example = (WORKFLOW / "own_images.yaml").read_text(encoding="utf-8")
    Path("own_images.yaml").write_text(
        example.replace("vfm: mobile_sam,", "vfm: mobile_sam, weights: mobile_sam.pth,"), encoding="utf-8"
    )
    assert main(["train", "own_images.yaml", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "own_images.yaml: 3 problems" in error
    for key in ("options/images: expected a file or folder, found none at photos", "options/masks: ", "weights: "):
        assert key in error


def test_what_is_seen_is_counted_and_drawn(tmp_path: Path) -> None:
    found = look()
    assert not found.problems
    text = "\n".join(found.lines)
    assert "training: 2 patients, 10 images; pixels: liver 2,509, right kidney 289" in text
    assert "validation: 1 patient, 1 volume; voxels: liver 1,154" in text
    assert "4 patients in all, 1 of them in the test list" in text
    assert "10 labelled training images" in text
    with Image.open(tmp_path / "results/phantom/preflight.png") as sheet:
        shown = {tuple(pixel) for pixel in np.asarray(sheet.convert("RGB")).reshape(-1, 3)}
    colours = {tuple(int(colour(structure)[k : k + 2], 16) for k in (1, 3, 5)) for structure in range(1, 5)}
    assert colours <= shown


def test_a_structure_that_no_labelled_image_of_a_budget_has_is_named() -> None:
    (one,) = [line for line in look(budgets=[1]).lines if "no labelled image has" in line]
    content = read("results/phantom/split/dataset/dataset.json")
    label = np.asarray(Image.open(Path("results/phantom/split/dataset", content["training"][0]["label"])))
    missing = [name for key, name in content["labels"].items() if int(key) not in label]
    assert missing
    assert f"note: budget 1: no labelled image has {', '.join(missing)}, so no method can find what" in one
    everything = "\n".join(look(budgets=["all"], num_labelled_groups=[1]).lines)
    assert "no labelled image has" not in everything
    for entry in content["training"]:  # no pixel of the first patient's spleen is left
        path = Path("results/phantom/split/dataset", entry["label"])
        pixels = np.array(Image.open(path))
        if entry["group"] == content["training"][0]["group"]:
            pixels[pixels == 4] = 0
            Image.fromarray(pixels).save(path)
    lines = "\n".join(look(budgets=["all"], num_labelled_groups=[1, 2]).lines)
    assert lines.count("no labelled image has") == 1
    assert "note: budget 1 patient: no labelled image has spleen, so" in lines


def test_a_file_of_the_data_set_that_has_gone_is_named_with_the_remedy(tmp_path: Path) -> None:
    look()
    next((tmp_path / "results/phantom/split/dataset/slices").glob("*.png")).unlink()
    (problem,) = look().problems
    assert problem.startswith("datasets/phantom: expected the files that ")
    assert problem.endswith("Delete the folder results/phantom/split/dataset: the study makes it again.")


def test_what_the_study_says_of_the_data_is_compared_with_them() -> None:
    found = look(num_classes=3, in_channels=3, images_2d=True, budgets=[4, 11])
    with pytest.raises(TskdError, match=r"toy\.yaml: 4 problems") as raised:
        found.refuse("toy.yaml")
    for line in (
        "datasets/phantom/num_classes: expected 5, as the data have, found 3",
        "datasets/phantom/in_channels: expected 1, as the data have, found 3",
        "datasets/phantom/images_2d: expected False, as the data have, found True",
        "datasets/phantom/budgets: expected at most the 10 labelled training images (split), found 11",
    ):
        assert line in str(raised.value)


def test_data_that_cannot_be_prepared_are_a_problem_of_the_file() -> None:
    (problem,) = look(prepare={"preparer": "phantom", "options": {"num-patients": 1}}).problems
    assert problem.startswith("datasets/phantom/prepare: ")
    assert "found" in problem


def test_a_network_that_cannot_be_built_is_a_problem_before_the_first_training(tmp_path: Path) -> None:
    config = read_yaml(TOY)
    config["overrides"]["student"]["image_size"] = 72  # no multiple of the patch of 16 pixels
    study = check_study(config, "toy")
    (step,) = [s for s in study.steps.values() if s.rule == "finetune" and "seed-0" in s.path]
    found = measure(Costs(study, tmp_path)._kind(step))
    assert "72" in found["problem"] or "divisible" in found["problem"]
    config["overrides"]["student"]["image_size"] = 64
    (step,) = [s for s in check_study(config, "toy").steps.values() if s.rule == "finetune" and "seed-0" in s.path]
    found = measure(Costs(study, tmp_path)._kind(step))
    assert 0 < found["forward"] < found["step"]


def test_a_picture_keeps_what_has_no_label_and_is_not_annotated() -> None:
    image = np.linspace(0, 255, 64).reshape(8, 8)
    label = np.zeros((8, 8), int)
    label[2:6, 2:6], label[0, 0] = 1, 255
    plain, tinted = blend(image, np.zeros_like(label)), blend(image, label)
    assert np.array_equal(plain[label != 1], tinted[label != 1])
    assert not np.array_equal(plain[label == 1], tinted[label == 1])
    assert len(set(COLOURS)) == len(COLOURS)


@pytest.mark.parametrize(
    ("changes", "modality", "shown"),
    [
        ({}, "MR", 1),
        ({}, "dermoscopy", 3),
        ({"augmentation#flip": 0.0}, "dermoscopy", 2),
        ({"tta": "$None"}, "dermoscopy", 1),
        ({"logits": "False"}, "dermoscopy", 1),
        ({"tta": "{'flips': [0], 'scales': [0.75, 1.25]}"}, "MR", 6),
    ],
)
def test_a_soft_label_costs_as_many_views_as_it_averages(changes: dict, modality: str, shown: int) -> None:
    assert views({**merged_config(TEACHER, ("train", "soft_labels")), **changes}, modality) == shown
