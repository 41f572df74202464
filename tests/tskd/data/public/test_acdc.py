"""ACDC: two frames of a patient are one group; the qform's spacing is believed."""

import nibabel as nib
import numpy as np
import pytest

from tskd.data import checks, datalist
from tskd.data.io.nifti import load_volume
from tskd.data.public.acdc import prepare_acdc
from tskd.errors import TskdError

SPACING = (1.5, 1.5, 10.0)


def write(path, array):
    """A file with the fault of ACDC's: the sform has voxels of 1 mm, the qform those of pixdim."""
    image = nib.Nifti1Image(array, None)
    image.set_qform(np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1]), code=1)
    image.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code=1)
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def patients(folder, numbers):
    for number in numbers:
        rng = np.random.default_rng(number)
        name = f"patient{number:03d}"
        for frame in (1, 12):
            label = np.zeros((16, 18, 2), np.uint8)
            label[3:14, 3:14], label[5:12, 5:12], label[1:4, 3:9] = 2, 3, 1
            image = (40 * label + rng.integers(0, 30, label.shape)).astype(np.int16)
            write(folder / name / f"{name}_frame{frame:02d}.nii.gz", image)
            write(folder / name / f"{name}_frame{frame:02d}_gt.nii.gz", label)
        write(folder / name / f"{name}_4d.nii.gz", np.zeros((4, 4, 2, 3), np.int16))
        (folder / name / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: NOR\nHeight: 170.0\nNbFrame: 30\nWeight: 70.0\n")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acdc") / "database"
    patients(folder / "training", range(1, 8))
    patients(folder / "testing", (101, 102))
    return folder


def test_the_source_s_test_folder_and_the_true_spacing(source, tmp_path):
    dataset_file = prepare_acdc(source.parent, tmp_path / "out")
    checks.check(dataset_file)
    data = datalist.read(dataset_file)
    assert [entry["case"] for entry in data["test"]] == [
        "patient101_frame01", "patient101_frame12", "patient102_frame01", "patient102_frame12",
    ]  # fmt: skip
    assert len({entry["group"] for entry in data["training"]}) == 6
    assert len(data["training"]) == 6 * 2 * 2
    assert len(data["validation"]) == 2
    _, affine = load_volume(dataset_file.parent / data["test"][0]["image"])
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), SPACING)
    assert "the qform is believed" in data["provenance"]["geometry"]
    assert str(source) not in dataset_file.read_text()


def test_training_alone_and_folds(source, tmp_path):
    data = datalist.read(prepare_acdc(source / "training", tmp_path / "drawn"))
    assert [len({e["group"] for e in data[n]}) for n in ("training", "validation", "test")] == [5, 1, 1]
    tests = [datalist.read(prepare_acdc(source, tmp_path / str(k), fold=k))["test"] for k in range(3)]
    assert sorted(e["case"] for test in tests for e in test) == sorted(
        f"patient{n:03d}_frame{f}" for n in [*range(1, 8), 101, 102] for f in ("01", "12")
    )


def test_a_frame_without_a_mask_is_named(source, tmp_path):
    patients(tmp_path / "in", (1, 2, 3))
    (tmp_path / "in/patient002/patient002_frame12_gt.nii.gz").unlink()
    with pytest.raises(TskdError, match=r"found no patient002_frame12_gt\.nii\.gz"):
        prepare_acdc(tmp_path / "in", tmp_path / "out")
