"""CHAOS T1-DUAL: one phase as volumes, both as colours, masks named after either phase."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tskd.data import checks, datalist
from tskd.data.io.nifti import load_volume, to_lps
from tskd.data.phantom.cohort import virtual_patient
from tskd.data.phantom.dicom_writer import write_series
from tskd.data.public.chaos_t1dual import prepare_chaos_t1dual
from tskd.errors import TskdError

SUBJECTS = ["1", "2", "5", "8", "13", "21", "36"]
GREYS = np.array([0, 63, 126, 189, 252], np.uint8)


def patient(subject):
    image, label, affine = virtual_patient(0, SUBJECTS.index(subject), image_size=24, num_slices=3)
    return {"in": image, "out": image.max() - image // 2}, label, affine


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The archive: odd file numbers in phase, even ones out of phase; masks are named after the latter."""
    folder = tmp_path_factory.mktemp("chaos") / "Train_Sets" / "MR"
    for subject in SUBJECTS:
        images, label, affine = patient(subject)
        place = folder / subject / "T1DUAL"
        for first, (phase, name) in enumerate((("out", "OutPhase"), ("in", "InPhase"))):
            series = place / "DICOM_anon" / name
            write_series(series, images[phase], affine, subject, f"{subject} {phase}", [first, first + 2, first + 4])
        (place / "Ground").mkdir()
        for position in range(3):
            Image.fromarray(GREYS[label[..., position]].T).save(place / "Ground" / f"IM{2 * position:04d}.png")
    return folder


@pytest.mark.parametrize("phase", ["in", "out"])
def test_one_phase(source, tmp_path, phase):
    dataset_file = prepare_chaos_t1dual(source.parents[1], tmp_path / "out", phase=phase)
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert (data["name"], data["channels"], len(data["training"])) == (f"chaos_t1dual_{phase}", 1, 6)
    assert {entry["group"] for entry in data["test"]} == {"5", "13", "21", "36"}
    for entry in data["test"]:
        images, label, affine = patient(entry["group"])
        (voxels, place), (truth, _) = (load_volume(dataset_file.parent / entry[key]) for key in ("image", "label"))
        np.testing.assert_array_equal(to_lps(voxels, place)[0], to_lps(images[phase], affine)[0])
        np.testing.assert_array_equal(to_lps(truth, place)[0], to_lps(label, affine)[0])


def test_both_phases_as_colours(source, tmp_path):
    single = {phase: prepare_chaos_t1dual(source, tmp_path / phase, phase=phase) for phase in ("in", "out")}
    dataset_file = prepare_chaos_t1dual(source, tmp_path / "both", phase="both")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert data["channels"] == 3
    assert [len(data[name]) for name in ("training", "validation", "test")] == [6, 3, 12]
    for entry in data["training"]:
        pixels = np.asarray(Image.open(dataset_file.parent / entry["image"]))
        for channel, phase in enumerate(("in", "out", "in")):
            grey = Image.open(single[phase].parent / "slices" / f"{entry['case']}.png")
            np.testing.assert_array_equal(pixels[..., channel], np.asarray(grey))
        label = Image.open(single["in"].parent / "slices" / f"{entry['case']}_label.png")
        np.testing.assert_array_equal(np.asarray(Image.open(dataset_file.parent / entry["label"])), np.asarray(label))


def test_what_is_missing_is_named(source, tmp_path):
    copy = shutil.copytree(source, tmp_path / "copy")
    shutil.rmtree(copy / "8" / "T1DUAL" / "DICOM_anon" / "OutPhase")
    with pytest.raises(TskdError, match=r"8/T1DUAL/DICOM_anon/OutPhase: expected a folder"):
        prepare_chaos_t1dual(copy, tmp_path / "x", phase="out")
    with pytest.raises(TskdError, match="Give the folder MR of the training archive"):
        prepare_chaos_t1dual(tmp_path / "nothing", tmp_path / "z")
