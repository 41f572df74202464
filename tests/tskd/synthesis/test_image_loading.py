"""Real images are read as the preparers write them."""

import numpy as np
import pytest
import torch

from tskd.data.datalist import entries, read, write
from tskd.data.io.intensity import PERCENTILES, Intensity
from tskd.data.io.nifti import write_volume
from tskd.data.prepare.volume_writer import Patient, prepare_volumes
from tskd.errors import TskdError
from tskd.synthesis import load_images, validation_images
from tskd.synthesis.image_loading import image_batches, picture_size

HEADER = {
    "name": "ct",
    "modality": "CT",
    "channels": 1,
    "labels": {"0": "background", "1": "liver"},
    "provenance": {},
}


def slices_and_volume(folder, volume, label, affine, header=HEADER, intensity=PERCENTILES):
    """One and the same volume as training slices (a) and as a validation volume (b), which no preparation would do."""
    write_volume(folder / "image.nii.gz", volume, affine)
    write_volume(folder / "label.nii.gz", label, affine)
    lists = {}
    for name, code in (("training", "a"), ("validation", "b")):
        patient = Patient(code, folder / "image.nii.gz", folder / "label.nii.gz")
        split = {"training": [], "validation": [], "test": [], name: [code]}
        lists[name] = read(prepare_volumes(folder / "out", [patient], split, header, intensity=intensity))[name]
    write(folder / "out/dataset.json", {**read(folder / "out/dataset.json"), **lists})
    return folder / "out/dataset.json"


@pytest.fixture
def prepare(tmp_path):
    def prepare(intensity):
        volume = np.random.default_rng(0).integers(-900, 900, (8, 6, 3)).astype(np.int16)
        affine = np.diag([1.5, 1.5, 3.0, 1.0])  # RAS: the preparer has to turn it
        return slices_and_volume(tmp_path, volume, (volume > 0).astype(np.uint8), affine, intensity=intensity)

    return prepare


@pytest.mark.parametrize("intensity", [PERCENTILES, Intensity("window", -150.0, 250.5)])
def test_slices_of_a_volume_equal_the_prepared_pngs(prepare, intensity):
    dataset_file = prepare(intensity)
    assert Intensity.of(dataset_file) == intensity
    items = sorted(entries(dataset_file, "transfer"), key=lambda entry: entry["case"])
    flat, cases, groups = load_images(items, (8, 6))
    held_out = validation_images(dataset_file, (8, 6))
    with pytest.raises(TskdError, match="val_images: expected 1 or more, found 0"):
        validation_images(dataset_file, (8, 6), 0)
    assert [entry["case"] for entry in held_out] == [case.replace("a", "b") for case in cases]
    assert groups == ["a"] * 3
    torch.testing.assert_close(torch.stack([e["image"] for e in held_out]), flat, atol=1e-7, rtol=0)


def test_padding_slices_of_a_volume_are_left_out_with_their_labels(tmp_path):
    volume = np.random.default_rng(0).integers(0, 900, (8, 6, 4)).astype(np.int16)
    volume[:, :, [0, 3]] = 0
    label = np.zeros_like(volume, np.uint8) + np.arange(4, dtype=np.uint8)
    header = {**HEADER, "labels": {"0": "background", "1": "one", "2": "two", "3": "three"}}
    dataset_file = slices_and_volume(tmp_path, volume, label, np.diag([-1.5, -1.5, 3.0, 1.0]), header)
    held_out = validation_images(dataset_file, (8, 6), labelled=True)
    assert [item["case"] for item in held_out] == ["b_001", "b_002"]
    assert [item["label"].unique().tolist() for item in held_out] == [[1], [2]]


def test_size_channels_and_limit(cohort):
    items = entries(cohort, "transfer")
    assert picture_size(items[0]["image"]) == (64, 64)
    images, cases, groups = load_images(items, (32, 16), channels=3, limit=7)
    assert images.shape == (7, 3, 32, 16)
    assert len(cases) == len(groups) == 7
    assert cases[0] == items[0]["case"]
    assert cases[-1] == items[-1]["case"]
    assert 0 <= images.min() < images.max() <= 1


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(TskdError, match=r"broken\.png"):
        load_images([{"image": str(tmp_path / "broken.png"), "case": "c", "group": "g"}], 8)


def test_portions_and_a_limit_give_the_images_of_the_whole(prepare, tmp_path):
    """Volumes and pictures mixed; a volume is no more than one portion's worth."""
    dataset_file = prepare(PERCENTILES)
    items = [
        *entries(dataset_file, "validation"),
        *entries(dataset_file, "transfer"),
        *entries(dataset_file, "validation"),
    ]
    images, cases, groups = load_images(items, (5, 4))
    assert len(images) == 9
    parts = list(image_batches(items, (5, 4), count=4))
    assert [len(part[0]) for part in parts] == [4, 4, 1]
    assert torch.equal(torch.cat([part[0] for part in parts]), images)
    assert [case for part in parts for case in part[1]] == cases
    assert [group for part in parts for group in part[2]] == groups
    few, few_cases, _ = load_images(items, (5, 4), limit=4)
    numbers = [0, 3, 5, 8]
    assert torch.equal(few, images[numbers])
    assert few_cases == [cases[number] for number in numbers]
