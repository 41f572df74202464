"""`check` opens every file and reports every problem at once."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tskd.data import checks, datalist
from tskd.errors import TskdError


def problems(dataset_file, **options) -> list[str]:
    with pytest.raises(TskdError) as caught:
        checks.check(dataset_file, **options)
    return str(caught.value).split("\n  - ")[1:]


def save(folder, name, array):
    Image.fromarray(np.asarray(array, np.uint8)).save(folder / name)


def test_sound_data_sets_pass(tiny, cohort):
    checks.check(tiny)
    checks.check(cohort)


def test_all_problems_in_one_error(tiny):
    folder = tiny.parent
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:40])
    save(folder, "2.png", np.full((5, 7), 9))
    save(folder, "2_label.png", np.full((5, 7), 3))
    save(folder, "3_label.png", np.zeros((7, 5)))
    save(folder, "4.png", np.zeros((5, 7, 3)) + np.arange(3))
    data = json.loads(tiny.read_text())
    data["test"][0].update(image="../elsewhere/7.png")
    data["validation"][0]["group"] = "p0"
    tiny.write_text(json.dumps(data))
    found = problems(tiny)
    expected = [
        "group 'p0': expected in one list, found in 'training' and 'validation'",
        "0.png: expected a file, found nothing there",
        "1.png: expected a readable image",
        "2.png: expected an image, found the value 9 everywhere",
        "2_label.png: expected label values 0 to 1 (key 'labels') or 255 (unlabelled pixel), found [3]",
        "3_label.png: expected the size of its image (7, 5), found (5, 7)",
        "4.png: expected 1 channels (key 'channels'), found 3",
        "../elsewhere/7.png: expected a file, found nothing outside the folder",
    ]
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))


@pytest.mark.parametrize(("first", "second"), [(0, 7), (4, 7), (0, 6), (6, 7)])
def test_a_copy_of_an_image_in_another_list_is_named(tiny, first, second):
    """The files may differ: the pixels count."""
    pixels = Image.open(tiny.parent / f"{first}.png")
    pixels.save(tiny.parent / f"{second}.png", compress_level=0)
    assert (tiny.parent / f"{first}.png").read_bytes() != (tiny.parent / f"{second}.png").read_bytes()
    home = {0: "training", 4: "training", 6: "validation", 7: "test"}
    assert problems(tiny) == [
        f"{second}.png: expected an image of one list, as a copy in another makes every measured number too good; "
        f"found the same pixels as {first}.png (in '{home[first]}') in '{home[second]}'. Remove one of the two."
    ]


def test_copies_within_a_list_constant_images_and_other_shapes_are_no_copies(tiny):
    save(tiny.parent, "1.png", np.asarray(Image.open(tiny.parent / "0.png")))
    save(tiny.parent, "4.png", np.asarray(Image.open(tiny.parent / "0.png")))  # unlabelled beside training
    for name, shape in (("0", (5, 7)), ("7", (7, 5))):
        save(tiny.parent, f"{name}_label.png", np.eye(*shape))
    save(tiny.parent, "7.png", np.asarray(Image.open(tiny.parent / "0.png")).reshape(7, 5))
    checks.check(tiny)
    for name in ("0", "6"):
        save(tiny.parent, f"{name}.png", np.zeros((5, 7)))
    found = problems(tiny)
    assert [line.partition(":")[0] for line in found] == ["0.png", "6.png"]
    assert all("expected an image, found the value 0 everywhere" in line for line in found)


def test_a_copy_of_a_volume_in_another_list_is_named(tiny):
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name, array in (("v", volume), ("label", volume % 2), ("copy", volume)):
        nib.nifti1.save(nib.nifti1.Nifti1Image(array, np.eye(4)), tiny.parent / f"{name}.nii.gz")
    data = datalist.read(tiny)
    for section, name in (("validation", "v"), ("test", "copy")):
        data[section][0].update(image=f"{name}.nii.gz", label="label.nii.gz")
    datalist.write(tiny, data)
    (line,) = problems(tiny)
    assert line.startswith("copy.nii.gz: expected an image of one list")
    assert "same pixels as v.nii.gz (in 'validation') in 'test'" in line


def test_files_outside_the_folder_may_be_used_if_they_exist(tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("elsewhere") / "7.png"
    (tiny.parent / "7.png").rename(place)
    data = datalist.read(tiny)
    data["test"][0]["image"] = str(place)
    datalist.write(tiny, data)
    checks.check(tiny)
    assert datalist.entries(tiny, "test")[0]["image"] == str(place)


def test_empty_training_list(tiny):
    data = datalist.read(tiny)
    datalist.write(tiny, {**data, "training": []})
    assert problems(tiny) == [line for line in problems(tiny) if line.startswith("training: expected at least one")]
    checks.check(tiny, labelled=False)


def test_black_and_white_masks_are_noticed(tiny):
    """A 0/255 mask would otherwise pass as one where every pixel is background or unlabelled."""
    for number in range(4):
        save(tiny.parent, f"{number}_label.png", np.eye(5, 7) * 255)
    assert "found only the values [0, 255]" in problems(tiny)[0]


def test_volumes_of_another_size_or_with_fractions(tiny):
    folder = tiny.parent
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name, array in (("v", volume), ("wrong", volume[:, :, :3] % 2), ("half", volume * np.float32(0.5))):
        nib.nifti1.save(nib.nifti1.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
    data = datalist.read(tiny)
    data["validation"][0].update(image="v.nii.gz", label="wrong.nii.gz")
    data["test"][0].update(image=str(folder / "v.nii.gz"), label="half.nii.gz")
    datalist.write(tiny, data)
    found = problems(tiny)
    assert "wrong.nii.gz: expected the size of its image (2, 3, 4), found (2, 3, 3)" in found[0]
    assert "half.nii.gz: expected label values that are whole numbers" in found[1]
    nib.nifti1.save(nib.nifti1.Nifti1Image(volume % 2, np.diag([1, 1, 3, 1])), folder / "half.nii.gz")
    assert "half.nii.gz: expected the place of its image, found a corner 8.0 mm away" in problems(tiny)[1]
    (folder / "v.nii.gz").write_bytes(b"not a volume")
    assert sum("v.nii.gz: expected a readable NIfTI file" in line for line in problems(tiny)) == 2


def test_labels_that_evaluation_would_refuse_or_validation_get_wrong(tiny):
    """They are compared with predictions voxel by voxel, on the grid of the image."""
    folder, affine = tiny.parent, np.diag([-1.0, -1.0, 3.0, 1.0])
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    moved = affine + np.array([[0, 0, 0, 0.3]] + [[0] * 4] * 3)
    turned = nib.as_closest_canonical(nib.nifti1.Nifti1Image(volume % 2, affine))
    for name, array, place in (
        ("v", volume, affine),
        ("turned", np.asarray(turned.dataobj), turned.affine),
        ("moved", volume % 2, moved),
    ):
        nib.nifti1.save(nib.nifti1.Nifti1Image(array, place), folder / f"{name}.nii.gz")
    data = datalist.read(tiny)
    data["validation"][0].update(image="v.nii.gz", label="turned.nii.gz")
    data["test"][0].update(image=str(folder / "v.nii.gz"), label="moved.nii.gz")
    datalist.write(tiny, data)
    found = problems(tiny)
    assert "turned.nii.gz: expected the axes and the place of its image" in found[0]
    assert "moved.nii.gz: expected the axes and the place of its image" in found[1]


def test_volumes_do_not_belong_into_training(tiny):
    nib.nifti1.save(
        nib.nifti1.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)), tiny.parent / "v.nii"
    )
    data = datalist.read(tiny)
    data["unlabelled"].append({"image": "v.nii", "group": "new", "case": "new"})
    datalist.write(tiny, data)
    assert "v.nii: expected a 2-D image in 'unlabelled', found a volume (case 'new')" in problems(tiny)[0]


@pytest.mark.parametrize(("mode", "what"), [("P", "a palette"), ("1", "one bit")])
def test_pictures_whose_values_are_not_grey_are_refused(tiny, mode, what):
    path = tiny.parent / datalist.read(tiny)["training"][0]["image"]
    Image.open(path).convert(mode).save(path)
    assert any(f"expected grey or RGB pixels, found {what} (mode {mode})" in line for line in problems(tiny))


def test_images_of_more_than_8_bits_are_refused(tiny):
    """All bundles scale 0 to 255: a picture of 16 bits would be white."""
    entry = datalist.read(tiny)["training"][0]
    path = tiny.parent / entry["image"]
    size = Image.open(path).size
    Image.fromarray(np.linspace(300, 60000, size[0] * size[1]).reshape(size[::-1]).astype(np.uint16)).save(path)
    (found,) = problems(tiny)
    assert "expected 8 bits a channel, found uint16" in found


def test_slices_of_one_patient_do_not_look_like_several(cohort: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Training has slices named patient_slice, validation whole patients: patient_1, patient_2."""
    checks.check(cohort)
    assert "several scans of one patient" not in caplog.text
