"""RGB images that are not square, from files to masks, through the real configs of all bundles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.bundles.conftest import BUNDLES
from tskd.data import check, read
from tskd.data.prepare.images import prepare_images_masks
from tskd.evaluation import read_rows
from tskd.export.ship import ship_run
from tskd.synthesis.folder import image_numbers

WIDTH, HEIGHT = 56, 40
TOY = {
    "num_classes": 2, "image_size": 64, "max_epochs": 1, "iterations_per_epoch": 1, "batch_size": 2, "warmup_steps": 1,
    "val_interval": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dataset.json in data/: grey speckle with one red block near a corner, which is the structure."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(10):
        image = rng.integers(30, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        left = int(rng.integers(30, 38))
        mask[4:12, left : left + 16] = 255
        image[mask > 0] = (220, 40, 40)
        Image.fromarray(image).save(folder / f"images/{number}.png")
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
    prepare_images_masks(folder / "data", ["block"], folder / "images", folder / "masks", name="blocks")
    return folder


@pytest.fixture
def data(folder: Path) -> dict[str, Any]:
    return {"dataset_dir": str(folder / "data"), "device": "cpu"}


def redness(folder: Path) -> dict[str, Any]:
    """A network in the student's place whose answer is known: what is red is the structure."""
    network = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0, 0, 0], [60, -30, -30]])[..., None, None])
        network.bias.copy_(torch.tensor([0.0, -18]))
    torch.save(network.state_dict(), folder / "red.pt")
    definition = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 2, "kernel_size": 1}
    return {"network_def": definition, "in_channels": 3, "num_classes": 2}


def test_masks_lie_on_the_images(folder: Path, data: dict[str, Any], run_bundle: Callable[..., Any]) -> None:
    run_bundle(
        "student_segmentation", "train", "images_2d", "evaluate", **data, **redness(folder), image_size=96,
        model_file=str(folder / "red.pt"), output_dir=str(folder / "red"),
    )  # fmt: skip
    test = read(folder / "data/dataset.json")["test"]
    assert {row.value for row in read_rows(folder / "red/metrics.csv") if row.metric == "dice"} == {1.0}
    for entry in test:
        truth = np.asarray(Image.open(folder / "data" / entry["label"]))
        with Image.open(folder / f"red/predictions/{entry['case']}.png") as mask:
            assert mask.size == (WIDTH, HEIGHT)
            np.testing.assert_array_equal(np.asarray(mask), truth)


@pytest.mark.parametrize("bundle", ["teacher_segmentation", "student_segmentation"])
def test_validation_does_not_count_pixels_without_a_label(
    folder: Path, data: dict[str, Any], bundle: str, run_bundle: Callable[..., Any]
) -> None:
    """Masks that are right where there are labels, and wrong elsewhere, have Dice 1 in training's own metric."""
    content = read(folder / "data/dataset.json")
    for entry in content["validation"]:
        label = np.array(Image.open(folder / "data" / entry["label"]))
        label[:, :46] = 255  # cuts through the block
        entry["label"] = entry["label"].replace(".png", "_part.png")
        Image.fromarray(label).save(folder / "data" / entry["label"])
    (folder / "data/part.json").write_text(json.dumps(content))
    known = redness(folder)
    if bundle.startswith("teacher"):
        del known["in_channels"]
    flow = run_bundle(
        bundle, "train", "images_2d", **data, **known, image_size=96,
        dataset_file=str(folder / "data/part.json"), network="$@network_def",
        initialize=["$@network_def.load_state_dict(torch.load('" + str(folder / "red.pt") + "'))"],
        run=["$@validate#evaluator.run()"], train__named_handlers__best__export="$lambda: None",
        output_dir=str(folder / bundle),
    )  # fmt: skip
    assert flow.parser.get_parsed_content("validate#evaluator").state.metrics["val_mean_dice"] == 1


def test_chain(folder: Path, data: dict[str, Any], run_bundle: Callable[..., Any]) -> None:
    teacher = {**TOY, **data, "vfm": "mobile_sam", "pretrained": "@network_def", "model_dir": str(folder / "teacher")}
    run_bundle("teacher_segmentation", "train", "images_2d", **teacher, output_dir=str(folder / "teacher"))
    soft = {"soft_labels": str(folder / "soft_labels")}
    run_bundle(
        "teacher_segmentation", "train", "images_2d", "soft_labels", **teacher, **soft,
        output_dir=str(folder / "teacher"),
    )  # fmt: skip
    manifest = json.loads((folder / "soft_labels/manifest.json").read_text())
    assert manifest["preprocessing"]["in_channels"] == 3  # as the data set says, without an option

    student = {**TOY, **data, "in_channels": 3}
    run_bundle(
        "student_segmentation", "train", "images_2d", "distill", **student, **soft, output_dir=str(folder / "distilled")
    )
    tuned = {**student, "output_dir": str(folder / "tskd"), "model_dir": str(folder / "tskd/models")}
    run_bundle(
        "student_segmentation", "train", "images_2d", **tuned,
        init_weights=str(folder / "distilled/models/model.pt"),
    )  # fmt: skip
    run_bundle("student_segmentation", "train", "images_2d", "evaluate", **tuned, method="tskd")
    test = read(folder / "data/dataset.json")["test"]
    assert {row.group for row in read_rows(folder / "tskd/metrics.csv")} == {entry["group"] for entry in test}

    bundle = ship_run(
        BUNDLES / "student_segmentation",
        folder / "tskd",
        folder / "my_segmentation",
        folder / "data/dataset.json",
        force=True,
    )
    pictures = {"dataset_dir": str(folder / "images"), "output_dir": str(folder / "shipped"), "device": "cpu"}
    run_bundle(str(bundle), "inference", workflow_type="infer", **pictures)
    for entry in test:
        with (
            Image.open(folder / f"shipped/{entry['case']}_seg.png") as shipped,
            Image.open(folder / f"tskd/predictions/{entry['case']}.png") as evaluated,
        ):
            np.testing.assert_array_equal(np.asarray(shipped), np.asarray(evaluated))


def test_synthetic_images_are_rgb(folder: Path, data: dict[str, Any], run_bundle: Callable[..., Any]) -> None:
    places = {"output_dir": str(folder / "ddpm"), "model_dir": str(folder / "ddpm/models")}
    toy = {key: value for key, value in TOY.items() if key != "num_classes"}
    run_bundle(
        "ddpm_synthesis", "train", "light_128", **{**toy, "image_size": 32}, **data, **places, in_channels=3,
        val_images=2, preview_interval=1, steps=2,
    )  # fmt: skip
    run_bundle("ddpm_synthesis", "inference", **data, **places, workflow_type="infer", num_images=3, steps=2)
    synthetic = folder / "ddpm/synthetic"
    check(synthetic / "dataset.json", labelled=False)
    assert read(synthetic / "dataset.json")["channels"] == 3
    assert image_numbers(synthetic) == [0, 1, 2]
    assert Image.open(synthetic / "images/000000.png").mode == "RGB"
