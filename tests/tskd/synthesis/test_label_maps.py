"""Label maps are real ones, warped, a function of seed and number; and images come with the map they were drawn to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from monai.bundle import ConfigParser
from PIL import Image

from tskd.data.checks import check
from tskd.data.datalist import entries, read, write
from tskd.distillation import labelled_entries
from tskd.errors import TskdError
from tskd.synthesis import (
    DiffusionBatch,
    DiffusionUNet,
    SeededSampler,
    WarpedLabels,
    export_model,
    gate,
    labels_for,
    one_hot,
    training_record,
    validation_images,
)
from tskd.synthesis.label_maps import read_labels

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "ddpm_synthesis"
SCHEDULER = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")


@pytest.fixture
def conditional(make_network, cohort) -> DiffusionUNet:
    """A network for one channel and the cohort's label maps, 16 x 16."""
    classes = len(read(cohort)["labels"])
    return DiffusionUNet(
        type(make_network().unet).from_config({**make_network().unet.config, "in_channels": 1 + classes})
    )


def test_one_hot_has_one_class_a_pixel_and_none_where_nobody_labelled():
    hot = one_hot(torch.tensor([[[[0, 2], [1, 255]]]], dtype=torch.uint8), 3)
    assert hot.shape == (1, 3, 2, 2)
    assert hot[0].argmax(0).tolist() == [[0, 2], [1, 0]]
    assert hot.sum(1).tolist() == [[[1, 1], [1, 0]]]


def test_a_map_depends_on_seed_and_number_alone(cohort):
    first, again, reseeded = (WarpedLabels(cohort, 32, seed) for seed in (0, 0, 1))
    maps = [first(k) for k in range(6)]
    assert all(torch.equal(again(k), maps[k]) for k in (5, 0, 3))
    assert not all(torch.equal(reseeded(k), maps[k]) for k in range(6))
    assert maps[0].shape == (1, 32, 32)
    assert maps[0].dtype == torch.uint8


def test_maps_have_the_classes_and_sizes_of_real_ones_and_are_none_of_them(cohort):
    labels = WarpedLabels(cohort, 64)
    real = torch.stack([read_labels(path, (64, 64)) for path in labels.paths])
    warped = torch.stack([labels(k) for k in range(len(real))])
    assert set(warped.unique().tolist()) <= set(real.unique().tolist())
    shares = [(maps > 0).float().mean().item() for maps in (real, warped)]
    assert shares[1] == pytest.approx(shares[0], rel=0.25)
    for one in warped[(warped > 0).flatten(1).any(1)]:
        assert not any(torch.equal(one, other) for other in real)


def test_without_any_warp_the_map_is_the_real_one(cohort):
    labels = WarpedLabels(cohort, 64, rotate=0, scale=0, translate=0, elastic=0)
    real = {tuple(read_labels(path, (64, 64)).flatten().tolist()) for path in labels.paths}
    assert {tuple(labels(k).flatten().tolist()) for k in range(5)} <= real


def test_only_the_label_budget_is_used(cohort):
    labels = WarpedLabels(cohort, 32, num_labelled=3)
    assert labels.paths == [entry["label"] for entry in entries(cohort, "labelled", 3)]
    assert labels.settings["count"] == 3
    assert labels.settings["sha256"] != WarpedLabels(cohort, 32, num_labelled=4).settings["sha256"]


def test_a_palette_image_keeps_its_indices(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "label.png")
    assert read_labels(tmp_path / "label.png", (2, 2))[0].T.tolist() == [[0, 1], [2, 1]]


def test_the_batch_hands_the_label_map_to_monais_inferer():
    label = torch.randint(0, 3, (4, 1, 8, 8), dtype=torch.uint8)
    named = DiffusionBatch(SCHEDULER, label_classes=3)({"image": torch.rand(4, 1, 8, 8), "label": label}, "cpu")[3]
    assert named["mode"] == "concat"
    assert torch.equal(named["condition"], one_hot(label, 3))


@pytest.mark.parametrize("flips", [["x"], ["y"], ["x", "y"]])
def test_flips_move_image_and_label_together_along_the_axes_asked_for(flips):
    torch.manual_seed(0)
    label = torch.randint(0, 4, (32, 1, 5, 6), dtype=torch.uint8)
    prepare = DiffusionBatch(SCHEDULER, flips=flips, label_classes=4)
    images, _, _, named = prepare({"image": label / 3, "label": label}, "cpu")
    moved = named["condition"].argmax(1, keepdim=True)
    torch.testing.assert_close((images + 1) / 2 * 3, moved.float())
    turns = {"": label, "x": label.flip(2), "y": label.flip(3), "xy": label.flip(2, 3)}
    seen = [next(name for name, turned in turns.items() if torch.equal(turned[k], moved[k])) for k in range(32)]
    assert set(seen) == ({"", *flips} if len(flips) == 1 else {"", "x", "y", "xy"})


def test_no_flips_unless_asked_for_and_only_known_axes():
    image = torch.rand(16, 1, 4, 4)
    torch.testing.assert_close((DiffusionBatch(SCHEDULER)({"image": image}, "cpu")[0] + 1) / 2, image)
    for wrong, named in (
        (["z", "x"], "'z'"),
        ([0, 1], "0, 1"),
    ):  # an index of an axis, too, is named and not a TypeError
        with pytest.raises(TskdError, match=f"some of x, y, found {named}"):
            DiffusionBatch(SCHEDULER, flips=wrong)


def test_validation_slices_come_with_their_own_labels(cohort):
    items = validation_images(cohort, 64, 8, labelled=True)
    assert len(items) == 8
    plain = validation_images(cohort, 64, 8)
    assert [item["case"] for item in items] == [item["case"] for item in plain]
    inside = torch.cat([item["image"][item["label"] > 0] for item in items])
    outside = torch.cat([item["image"][item["label"] == 0] for item in items])
    assert inside.mean() > outside.mean() + 0.1  # organs are brighter than air and fat together


def test_the_network_sees_the_map_and_the_map_changes_the_image(conditional, cohort):
    labels = labels_for(conditional, cohort, seed=4)
    drawn = SeededSampler(SCHEDULER, steps=3, seed=4, labels=labels)(torch.arange(3), conditional)
    assert drawn.shape == (3, 1, 16, 16)
    reseeded = SeededSampler(SCHEDULER, steps=3, seed=4, labels=labels_for(conditional, cohort, seed=5))
    assert not torch.equal(reseeded(torch.arange(3), conditional), drawn)
    with pytest.raises(TskdError, match=r"expected .* of its label map\), found 1"):
        SeededSampler(SCHEDULER, steps=3)(torch.arange(1), conditional)


def test_a_dataset_of_other_classes_is_refused(conditional, network, cohort, tmp_path):
    assert labels_for(network, cohort) is None
    data = read(cohort)
    for item in (item for name in ("training", "validation", "test") for item in data[name]):
        item.update({key: str(cohort.parent / item[key]) for key in ("image", "label")})
    write(tmp_path / "more.json", {**data, "labels": {**data["labels"], str(len(data["labels"])): "more"}})
    with pytest.raises(TskdError, match="classes that the diffusion model was trained with"):
        labels_for(conditional, tmp_path / "more.json")


def test_the_labelled_budget_is_that_of_the_training(conditional, cohort, tmp_path):
    items = entries(cohort, "labelled", 5)
    pipeline = export_model(conditional, SCHEDULER, tmp_path, record=training_record(items))
    assert labels_for(conditional, cohort, pipeline_dir=pipeline).paths == [item["label"] for item in items]
    assert len(labels_for(conditional, cohort, 0, 3, pipeline).paths) == 3
    with pytest.raises(TskdError, match=r"num_labelled: expected at most the 5 label maps .* found 6"):
        labels_for(conditional, cohort, 0, 6, pipeline)
    data = read(cohort)
    for item in (item for name in ("training", "validation", "test") for item in data[name]):
        item.update({key: str(cohort.parent / item[key]) for key in ("image", "label")})
    write(tmp_path / "other.json", {**data, "training": data["training"][::-1]})
    for num_labelled in (None, 2):
        with pytest.raises(TskdError, match="with in 'training', found others"):
            labels_for(conditional, tmp_path / "other.json", 0, num_labelled, pipeline)


def test_label_maps_of_whole_patients_are_known_again(conditional, cohort, tmp_path):
    items = entries(cohort, "labelled", "2 patients")
    pipeline = export_model(conditional, SCHEDULER, tmp_path, record=training_record(items))
    assert labels_for(conditional, cohort, pipeline_dir=pipeline).paths == [item["label"] for item in items]
    assert len(labels_for(conditional, cohort, 0, "1 patient", pipeline).paths) < len(items)
    with pytest.raises(TskdError, match="num_labelled: expected at most"):
        labels_for(conditional, cohort, 0, "3 patients", pipeline)


def test_training_takes_the_same_pixels_of_a_label_map_as_sampling(tmp_path):
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (37, 29), dtype=np.uint8))
    Image.fromarray(labels.numpy().T).save(tmp_path / "label.png")
    Image.new("L", (37, 29)).save(tmp_path / "image.png")
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / name) for name in ("train.json", "label_maps.json")])
    parser["image_size"] = 16
    item = {key: str(tmp_path / f"{key}.png") for key in ("image", "label")}
    trained = parser.get_parsed_content("train#preprocessing")(item)["label"]
    assert torch.equal(trained, read_labels(tmp_path / "label.png", (16, 16)))


def test_images_with_masks_are_a_training_list_of_their_own(conditional, cohort, fill, tmp_path):
    labels = labels_for(conditional, cohort)
    assert labels is not None
    fill(tmp_path, conditional, SCHEDULER, 4, labels=labels)
    gate(tmp_path, cohort, quantile=1.0)
    check(tmp_path / "dataset.json")
    labelled = read(tmp_path / "dataset.json")["training"]
    for k, entry in enumerate(labelled):
        assert torch.equal(read_labels(tmp_path / entry["label"], (16, 16)), labels(k))
    assert {entry["group"] for entry in labelled} == {"synthetic"}
    assert read(tmp_path / "dataset.json")["provenance"]["label_maps"] == labels.settings

    both = labelled_entries(cohort, 5, tmp_path / "dataset.json")
    assert both[:5] == entries(cohort, "labelled", 5)
    assert [(entry["group"], Path(entry["label"]).name) for entry in both[5:]] == [
        ("synthetic", f"{k:06d}.png") for k in range(4)
    ]
    assert all("label" not in entry for entry in entries(tmp_path / "dataset.json", "transfer"))
    with pytest.raises(TskdError, match="label_maps: the folder has"):
        fill(tmp_path, conditional, SCHEDULER, 4, labels=labels_for(conditional, cohort, 0, 3))
