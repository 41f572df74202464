"""No image of validation or test is trained on, under whatever name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tskd.data.datalist import entries, read, write
from tskd.data.io.intensity import PERCENTILES, Intensity
from tskd.data.io.nifti import load_volume, to_lps
from tskd.data.io.slices import write_slices
from tskd.data.phantom.cohort import prepare_phantom
from tskd.data.prepare.volume_writer import Patient, prepare_volumes
from tskd.errors import TskdError
from tskd.synthesis import check_training_images, export_model, training_record


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """dataset.json of 2-D images: two for training, one unlabelled, one for validation, one for the test."""
    rng = np.random.default_rng(0)
    lists = {"training": ["a", "b"], "unlabelled": ["c"], "validation": ["d"], "test": ["e"]}
    for name in "abcde":
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    data = {
        section: [
            {"image": f"{n}.png", "group": n, "case": n} | ({} if section == "unlabelled" else {"label": f"{n}.png"})
            for n in names
        ]
        for section, names in lists.items()
    }
    header = {"name": "flat", "modality": "US", "channels": 1, "labels": {"0": "background", "1": "nerve"}}
    write(tmp_path / "dataset.json", {**header, **data})
    return tmp_path / "dataset.json"


def test_the_transfer_list_passes(flat, cohort):
    check_training_images(flat, entries(flat, "transfer"))
    check_training_images(cohort, entries(cohort, "transfer"))


@pytest.mark.parametrize("section", ["validation", "test"])
def test_held_out_entries_are_refused_by_list(flat, section):
    with pytest.raises(TskdError, match=f"in the list '{section}'"):
        check_training_images(flat, entries(flat, "transfer") + entries(flat, section))


def test_a_renamed_copy_is_refused_by_content(flat):
    Image.open(flat.parent / "e.png").convert("RGB").save(flat.parent / "c.png")
    with pytest.raises(TskdError, match=r"c\.png .*has the pixels of .*e\.png \(in 'test'\)"):
        check_training_images(flat, entries(flat, "transfer"))


def test_other_channels_are_refused_at_the_start(flat):
    check_training_images(flat, entries(flat, "transfer"), None, 1)
    with pytest.raises(TskdError, match=r"expected in_channels = 3 .* found 1\. Pass --in_channels 1"):
        check_training_images(flat, entries(flat, "transfer"), None, 3)


def test_a_start_that_has_seen_a_held_out_image_is_refused(flat, tmp_path, network, scheduler, caplog):
    transfer = entries(flat, "transfer")
    other_fold = export_model(
        network, scheduler, tmp_path / "other", record=training_record(transfer + entries(flat, "test"))
    )
    with pytest.raises(TskdError, match=r"e\.png \(in 'test'\) is an image that .*other/pipeline was trained on"):
        check_training_images(flat, transfer, other_fold)
    grandchild = export_model(network, scheduler, tmp_path / "grandchild", record=training_record(transfer, other_fold))
    with pytest.raises(TskdError, match=r"e\.png .* that .*grandchild/pipeline was trained on"):
        check_training_images(flat, transfer, grandchild)
    assert not caplog.text
    check_training_images(
        flat, transfer, export_model(network, scheduler, tmp_path / "own", record=training_record(transfer))
    )
    check_training_images(flat, transfer, export_model(network, scheduler, tmp_path / "unknown"))
    assert "nobody can tell which images" in caplog.text


@pytest.mark.parametrize("intensity", [PERCENTILES, Intensity("window", 0.0, 600.0)])
def test_slices_of_a_held_out_volume_are_refused_by_content(tmp_path, intensity):
    source = read(prepare_phantom(tmp_path / "phantom", 4, 0, 32, 4, 1, 1))
    codes = {name: [entry["group"] for entry in source[name]] for name in ("training", "validation", "test")}
    raw, patients = tmp_path / "phantom" / "raw", []
    for code in sorted({code for listed in codes.values() for code in listed}):
        image = raw / f"{code}.nii.gz"
        patients.append(Patient(code, image if image.exists() else raw / code, raw / f"{code}_label.nii.gz"))
    codes["training"] = sorted(set(codes["training"]))
    header = {key: source[key] for key in ("name", "modality", "channels", "labels", "provenance")}
    dataset_file = prepare_volumes(tmp_path / "data", patients, codes, header, intensity=intensity)
    check_training_images(dataset_file, entries(dataset_file, "transfer"))

    (held_out,) = (patient for patient in patients if patient.group in codes["test"])
    volume = intensity.scale(to_lps(*load_volume(held_out.image))[0])
    planted = write_slices(tmp_path / "data", "another patient", volume)
    write(dataset_file, {**read(dataset_file), "unlabelled": planted})
    with pytest.raises(TskdError, match=rf"another patient_000\.png .*has the pixels of .*{held_out.group}\.nii\.gz"):
        check_training_images(dataset_file, entries(dataset_file, "transfer"))


def test_images_of_16_bits_are_told_apart_where_8_bits_would_clip(flat):
    pixels = np.full((8, 8), 3000, np.uint16)
    pixels[0, 0] = 4000
    Image.fromarray(pixels).save(flat.parent / "e.png")
    Image.fromarray(pixels.T + 1000).save(flat.parent / "c.png")
    check_training_images(flat, entries(flat, "transfer"))
    Image.fromarray(pixels).save(flat.parent / "c.png")
    with pytest.raises(TskdError, match=r"c\.png .*has the pixels of .*e\.png"):
        check_training_images(flat, entries(flat, "transfer"))


def test_an_image_of_no_list_is_refused(flat):
    shutil.copy(flat.parent / "a.png", flat.parent / "stray.png")
    with pytest.raises(TskdError, match=r"stray\.png is in no list"):
        check_training_images(flat, [{"image": str(flat.parent / "stray.png")}])
