"""Geometry has several sources: they are compared, and what is written has one, the same in two readers."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel import affines, eulerangles

from tests.tskd.data.kinds.studies import AFFINE, image_of, label_of, make, prepare, refusal, said, save_volume
from tskd.cli import main
from tskd.data import datalist, load_label, load_volume
from tskd.data.io.nifti import clean_image, write_volume
from tskd.errors import TskdError
from tskd.evaluation.predictions import save_mask

MIRRORED = AFFINE @ np.array([[-1.0, 0, 0, 8], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_forms_that_disagree_are_refused_and_a_choice_decides(tmp_path: Path) -> None:
    folder = make(tmp_path, "volumes")
    save_volume(folder / "images/p1.nii.gz", image_of(1), qform=MIRRORED)
    save_volume(folder / "masks/p1.nii.gz", label_of(1), MIRRORED)  # drawn in a program that believes the qform
    message = refusal(folder, "volumes")
    assert "images/p1.nii.gz: expected a sform and a qform that agree" in message
    assert "--affine sform, or --affine qform" in message
    for choice, expected in (("qform", AFFINE @ np.linalg.inv(AFFINE) @ MIRRORED), ("sform", AFFINE)):
        array, affine = load_volume(folder / "images/p1.nii.gz", choice)
        np.testing.assert_allclose(affine, expected, atol=1e-5)
        np.testing.assert_array_equal(array, image_of(1))


def test_the_command_takes_the_choice(tmp_path: Path) -> None:
    folder = make(tmp_path, "volumes")
    save_volume(folder / "images/p1.nii.gz", image_of(1), qform=MIRRORED)
    command = ["prepare", "volumes", "--images", str(folder / "images"), "--masks", str(folder / "masks")]
    command += ["--labels", "liver", "--output", str(tmp_path / "out")]
    assert main(command) != 0
    assert main([*command, "--affine", "sform"]) in (0, None)


def test_a_choice_takes_the_form_that_is_alone(tmp_path: Path) -> None:
    """Drawn in a program that believes the qform, the mask has that place as its only form."""
    folder = make(tmp_path, "volumes")
    save_volume(folder / "images/p1.nii.gz", image_of(1), qform=MIRRORED)
    save_volume(folder / "masks/p1.nii.gz", label_of(1), MIRRORED, qform_code=0)
    image, affine = load_volume(folder / "images/p1.nii.gz", "qform")
    label = load_label(folder / "masks/p1.nii.gz", image.shape, affine, "qform")
    np.testing.assert_array_equal(label, label_of(1))
    prepare(folder, "volumes", affine="qform")


@pytest.mark.parametrize(("shift", "message"), [(0.3, None), (0.8, "agree")])
def test_forms_that_differ_by_rounding_count_as_one(tmp_path: Path, shift: float, message: str | None) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += shift  # mm; half of the smallest voxel is 0.75
    save_volume(tmp_path / "a.nii.gz", image_of(0), qform=moved)
    if message is None:
        load_volume(tmp_path / "a.nii.gz")
    else:
        with pytest.raises(TskdError, match=message):
            load_volume(tmp_path / "a.nii.gz")


def test_a_form_alone_against_the_spacing_of_pixdim(tmp_path: Path) -> None:
    save_volume(tmp_path / "b.nii", image_of(0), qform_code=0, pixdim=[1, 1, 1, 1, 0, 0, 0, 0])
    with pytest.raises(TskdError, match="expected the spacing of its sform"):
        load_volume(tmp_path / "b.nii")
    np.testing.assert_allclose(load_volume(tmp_path / "b.nii", "sform")[1], AFFINE, atol=1e-5)


@pytest.mark.parametrize(("code", "millimetres"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)])
def test_the_unit_is_read(tmp_path: Path, code: int, millimetres: float) -> None:
    save_volume(tmp_path / "a.nii.gz", image_of(0), xyzt_units=code)
    affine = load_volume(tmp_path / "a.nii.gz")[1]
    np.testing.assert_allclose(affine[:3], millimetres * AFFINE[:3], rtol=1e-5)


def test_an_unknown_unit_is_refused(tmp_path: Path) -> None:
    save_volume(tmp_path / "a.nii.gz", image_of(0), xyzt_units=7)
    with pytest.raises(TskdError, match="m, mm or micron, found code 7"):
        load_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("size", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize("voxels", [0.4, 0.6, 3])
def test_tolerances_are_those_of_the_voxel(tmp_path: Path, size: float, voxels: float) -> None:
    folder = make(tmp_path, "volumes")
    small = np.diag([size, size, size, 1.0])
    moved = small.copy()
    moved[0, 3] = voxels * size
    save_volume(folder / "images/p1.nii.gz", image_of(1), small)
    save_volume(folder / "masks/p1.nii.gz", label_of(1), moved)
    if voxels < 0.5:
        prepare(folder, "volumes")
    else:
        assert f"({voxels:.1f} voxels)" in refusal(folder, "volumes")


@pytest.mark.parametrize("degrees", [5, 20])
def test_sheared_axes_are_refused(tmp_path: Path, degrees: float) -> None:
    affine = AFFINE.copy()
    affine[1, 2] = 4 * np.tan(np.radians(degrees)) * 3
    save_volume(tmp_path / "a.nii.gz", np.zeros((20, 20, 20), np.int16), affine, qform_code=0)
    with pytest.raises(TskdError, match="right angles"):
        load_volume(tmp_path / "a.nii.gz")
    with pytest.raises(TskdError, match="right angles"):
        clean_image(np.zeros((20, 20, 20), np.int16), affine)


def test_a_volume_without_any_form_is_said_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "volumes")
    for name in ("images", "masks"):
        save_volume(
            folder / name / "p1.nii.gz", image_of(1) if name == "images" else label_of(1), sform_code=0, qform_code=0
        )
    text = said(caplog, prepare(folder, "volumes"))
    assert "1 volumes do not say how they lie" in text
    assert "p1" in text


def test_only_one_of_a_pair_says_how_it_lies(tmp_path: Path) -> None:
    folder = make(tmp_path, "volumes")
    save_volume(folder / "masks/p1.nii.gz", label_of(1), sform_code=0, qform_code=0)
    assert "how the two lie on each other cannot be known" in refusal(folder, "volumes")


OBLIQUE = affines.from_matvec(eulerangles.euler2mat(z=0.3, y=0.2, x=-0.4), [5.0, -20, 7]) @ AFFINE


@pytest.mark.parametrize("affine", [AFFINE, MIRRORED, OBLIQUE])
@pytest.mark.parametrize("writer", ["volume", "mask"])
def test_two_readers_see_the_landmark_at_one_place(tmp_path: Path, affine: np.ndarray, writer: str) -> None:
    """An asymmetric landmark, by nibabel and by SimpleITK; both forms, one unit."""
    array = np.zeros((9, 7, 4), np.uint8)
    array[7, 1, 3] = 1
    path = tmp_path / "a.nii.gz"
    write_volume(path, array, affine) if writer == "volume" else save_mask(array, affine, tmp_path / "a")
    image = nib.load(path)
    index = np.argwhere(np.asarray(image.dataobj) == 1)[0]
    expected = (affine @ [7, 1, 3, 1])[:3]
    np.testing.assert_allclose(affines.apply_affine(image.affine, index), expected, atol=1e-3)
    second = sitk.ReadImage(str(path))
    z, y, x = np.argwhere(sitk.GetArrayFromImage(second) == 1)[0]
    lps = np.array(second.TransformIndexToPhysicalPoint([int(x), int(y), int(z)]))
    np.testing.assert_allclose(lps * [-1, -1, 1], expected, atol=1e-3)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_what_preparation_writes_of_micrometres_is_millimetres(tmp_path: Path) -> None:
    folder = make(tmp_path, "volumes")
    for number in range(6):
        for name, array in (("images", image_of(number)), ("masks", label_of(number))):
            save_volume(folder / f"{name}/p{number}.nii.gz", array, xyzt_units=3)
    path = prepare(folder, "volumes")
    entry = datalist.read(path)["test"][0]
    second = sitk.ReadImage(str(path.parent / entry["image"]))
    np.testing.assert_allclose(second.GetSpacing(), (0.002, 0.0015, 0.004), rtol=1e-5)
