"""Preparation: right files, once, also after an interruption."""

import numpy as np
import pytest

from tskd.data import checks, datalist
from tskd.data.io.intensity import PERCENTILES
from tskd.data.io.nifti import load_volume, to_lps, write_volume
from tskd.data.phantom.cohort import virtual_patient
from tskd.data.prepare.volume_writer import Patient, preparation, prepare_volumes
from tskd.errors import TskdError

HEADER = {
    "name": "cohort",
    "modality": "MR",
    "channels": 1,
    "labels": {"0": "background", "1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"},
    "provenance": {"source": "made for this test", "licence": "CC0 1.0"},
}
SPLIT = {"training": ["0", "1", "2"], "validation": ["3"], "test": ["4"]}


@pytest.fixture
def patients(tmp_path):
    found = []
    for number in range(5):
        image, label, affine = virtual_patient(seed=2, number=number, image_size=24, num_slices=4)
        write_volume(tmp_path / f"{number}.nii.gz", image[::-1], affine @ np.diag([-1.0, 1, 1, 1]))
        write_volume(tmp_path / f"{number}_l.nii.gz", label[::-1], affine @ np.diag([-1.0, 1, 1, 1]))
        found.append(Patient(str(number), tmp_path / f"{number}.nii.gz", tmp_path / f"{number}_l.nii.gz"))
    return found


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_lists_and_pixels(patients, tmp_path):
    patients[2] = Patient("2", patients[2].image)  # nobody labelled this one
    dataset_file = prepare_volumes(tmp_path / "out", patients, SPLIT, HEADER, seed=7)
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert {entry["group"] for entry in data["training"]} == {"0", "1"}
    assert {entry["group"] for entry in data["unlabelled"]} == {"2"}
    assert [entry["case"] for entry in data["validation"] + data["test"]] == ["3", "4"]
    assert data["provenance"]["seed"] == 7
    assert data["provenance"]["licence"] == "CC0 1.0"
    original, affine = load_volume(patients[4].image)
    copied, copied_affine = load_volume(tmp_path / "out" / data["test"][0]["image"])
    np.testing.assert_array_equal(copied, original)
    np.testing.assert_allclose(copied_affine, affine)
    turned = PERCENTILES.scale(to_lps(*load_volume(patients[0].image))[0])
    from PIL import Image

    with Image.open(tmp_path / "out" / "slices" / "0_001.png") as png:
        np.testing.assert_allclose(np.asarray(png).T / 255, turned[:, :, 1], atol=0.5 / 255 + 1e-6)


def test_slices_that_nobody_annotated_are_unlabelled(patients, tmp_path):
    label, affine = load_volume(patients[1].label)
    axis = int(np.abs(affine[2, :3]).argmax())
    assert axis == 2
    label[:, :, [0, 2]] = 255
    write_volume(tmp_path / "some.nii.gz", label.astype(np.uint8), affine)
    patients[1] = Patient("1", patients[1].image, tmp_path / "some.nii.gz")
    data = datalist.read(prepare_volumes(tmp_path / "out", patients, SPLIT, HEADER))
    assert [entry["case"] for entry in data["unlabelled"]] == ["1_000", "1_002"]
    assert sorted(entry["case"] for entry in data["training"] if entry["group"] == "1") == ["1_001", "1_003"]


def test_validation_patients_need_labels_and_must_exist(patients, tmp_path):
    with pytest.raises(TskdError, match="patient 3: expected a label"):
        prepare_volumes(tmp_path / "a", [*patients[:3], Patient("3", patients[3].image), patients[4]], SPLIT, HEADER)
    with pytest.raises(TskdError, match="found 9"):
        prepare_volumes(tmp_path / "b", patients, {**SPLIT, "test": ["9"]}, HEADER)
    with pytest.raises(TskdError, match="each code once"):
        prepare_volumes(tmp_path / "c", [*patients, patients[0]], SPLIT, HEADER)


def run(folder, patients, settings, fail=False):
    with preparation(folder, settings) as needed:
        if needed:
            prepare_volumes(folder, patients, SPLIT, HEADER)
            if fail:
                raise KeyboardInterrupt
    return needed


def test_same_preparation_twice_does_nothing(patients, tmp_path):
    out = tmp_path / "out"
    assert run(out, patients, {"seed": 0})
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    (out / "notes.txt").write_text("of the user")
    assert not run(out, patients, {"seed": 0})
    assert {path: path.stat().st_mtime_ns for path in before} | {out / "slices": before[out / "slices"]} == before


def test_other_settings_or_other_files_are_refused(patients, tmp_path):
    out = tmp_path / "out"
    run(out, patients, {"seed": 0, "size": 3})
    with pytest.raises(TskdError, match="a preparation with other seed"):
        run(out, patients, {"seed": 1, "size": 3})
    with pytest.raises(TskdError, match="expected an empty folder"):
        run(tmp_path, patients, {"seed": 0})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "preparation.json").write_text('{"from": "another tool"}')
    with pytest.raises(TskdError, match="expected an empty folder"):
        run(tmp_path / "other", patients, {"seed": 0})
    with pytest.raises(TskdError, match="found a file"):
        run(patients[0].image, patients, {"seed": 0})


def test_interrupted_preparation_is_done_again(patients, tmp_path):
    run(tmp_path / "whole", patients, {"seed": 0})
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(out, patients, {"seed": 0}, fail=True)
    (out / "slices" / "left_over.png").write_bytes(b"half a file")
    (out / ".draft-4711-preparation.json").write_bytes(b"{")
    assert run(out, patients, {"seed": 0})
    assert files(out) == files(tmp_path / "whole")
    assert not run(out, patients, {"seed": 0})


def test_lost_files_are_made_again(patients, tmp_path):
    run(tmp_path / "out", patients, {"seed": 0})
    before = files(tmp_path / "out")
    (tmp_path / "out" / "slices" / "0_001.png").unlink()
    assert run(tmp_path / "out", patients, {"seed": 0})
    assert files(tmp_path / "out") == before


def test_files_of_the_user_survive_an_interrupted_preparation(patients, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", patients, {"seed": 0}, fail=True)
    (tmp_path / "out" / "notes.txt").write_text("of the user")
    with pytest.raises(TskdError, match="beside a preparation"):
        run(tmp_path / "out", patients, {"seed": 0})
    assert (tmp_path / "out" / "notes.txt").is_file()
