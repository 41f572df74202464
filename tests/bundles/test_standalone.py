"""The student stands alone: a shipped bundle segments where nothing of this project can be imported."""

import json
import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.bundles.standalone import (
    NEIGHBOURS,
    PATCHES,
    reference_mask,
    reference_picture,
    run_alone,
    segmentation,
    ship,
    write_otherwise,
    write_picture,
    write_volumes,
)
from tskd.data import load_volume, write_volume
from tskd.predict.shipped_bundle import read_bundle
from tskd.predict.torch_backend import TorchBackend

MODULES = ("tskd.cli", "peft", "transformers")
SEVERAL = {"neighbours": NEIGHBOURS, "patches": PATCHES}
MISSING = "this bundle needs packages that are not installed: pip install transformers==1.0.0"


class Alone(NamedTuple):
    """What one process without the project has done: the folder with the masks, and the commands that it refused."""

    root: Path
    refused: dict[str, CompletedProcess[str]]


@pytest.fixture(scope="module")
def root(alone: Alone) -> Path:
    """Folders volumes, grey, colour and lite, each with a shipped bundle, images/ and the masks that it gave."""
    return alone.root


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Shipped bundles at work; one process for all, since each would import MONAI anew."""
    root = tmp_path_factory.mktemp("standalone")
    for name in ("volumes", "neighbours", "patches", "grey", "colour", "lite"):
        (root / name / "images").mkdir(parents=True)
    holes = write_volumes(root / "volumes/images")[0]
    for name in SEVERAL:
        write_volumes(root / name / "images")
    write_otherwise(write_picture(root / "grey/images"))
    for name in ("colour", "lite"):
        write_picture(root / name / "images", in_channels=3)
    array, affine = load_volume(holes)
    (root / "volumes/holes").mkdir()
    for value in (0, np.nan):  # as outside the field of view of a volume that was resampled
        array = array.astype(np.float32)
        array[:6] = value
        write_volume(root / f"volumes/holes/{value}.nii.gz", array, affine)
    volumes = ship(root / "volumes", "nii.gz")
    grey = ship(root / "grey", "png")
    (root / "deep").mkdir()
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(root / "deep/a.png")
    done = run_alone(
        segmentation(volumes, root / "volumes/images", root / "volumes/masks"),
        [*segmentation(volumes, root / "volumes/images", root / "volumes/one_piece"), "--largest_component", "[1, 3]"],
        segmentation(volumes, root / "volumes/holes", root / "volumes/holes_masks"),
        segmentation(grey, root / "grey/images", root / "grey/masks"),
        segmentation(
            ship(root / "colour", "nii.gz", in_channels=3), root / "colour/images", root / "colour/masks",
            "inference_2d.json",
        ),
        segmentation(ship(root / "lite", "png", 3, lite=True), root / "lite/images", root / "lite/masks"),
        *(
            segmentation(ship(root / name, "nii.gz", several=several), root / name / "images", root / name / "masks")
            for name, several in SEVERAL.items()
        ),
        segmentation(volumes, root / "misspelt", root / "no_masks"),
        segmentation(grey, root / "misspelt", root / "no_masks"),
        segmentation(grey, root / "deep", root / "no_masks"),
        segmentation(_needing_more(grey, root / "lacking_segmentation"), root / "grey/images", root / "no_masks"),
        *([module] for module in MODULES),
        cwd=root,
    )  # fmt: skip
    for run in done[:8]:
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return Alone(root, dict(zip(("nii.gz", "png", "deep", "lacking", *MODULES), done[8:], strict=True)))


def _needing_more(bundle: Path, copy: Path) -> Path:
    """A copy of a bundle that needs a package which is not there."""
    shutil.copytree(bundle, copy)
    metadata = json.loads((copy / "configs/metadata.json").read_text())
    metadata["required_packages_version"]["transformers"] = "1.0.0"
    (copy / "configs/metadata.json").write_text(json.dumps(metadata))
    return copy


def test_a_package_that_is_missing_is_named_in_one_line_before_the_first_image(alone: Alone) -> None:
    assert alone.refused["lacking"].returncode != 0
    assert alone.refused["lacking"].stderr.strip().splitlines()[-1] == MISSING
    assert "Traceback" not in alone.refused["lacking"].stderr
    assert not (alone.root / "no_masks").exists()


@pytest.mark.parametrize("module", MODULES)
def test_the_other_interpreter_cannot_import_the_project(alone: Alone, module: str) -> None:
    assert alone.refused[module].returncode != 0
    assert "blocked by the test" in alone.refused[module].stderr


def test_volumes_get_masks_in_their_own_place(root: Path) -> None:
    paths = sorted((root / "volumes/images").iterdir())
    assert len(list((root / "volumes/masks").iterdir())) == len(paths) == 2
    for path in paths:
        image, mask = (
            nib.load(path),
            nib.load(root / "volumes/masks" / path.name.replace(".nii", "_seg.nii")),
        )
        assert mask.shape == image.shape
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
        array = np.asarray(mask.dataobj)
        assert len(np.unique(array)) > 2
        assert np.mean(array != reference_mask(path)) < 1e-3  # ties of the argmax may fall otherwise on another CPU


@pytest.mark.parametrize("name", list(SEVERAL))
def test_students_of_several_slices_give_the_masks_that_they_give_here(root: Path, name: str) -> None:
    backend = TorchBackend(read_bundle(root / name / "student_segmentation"), "cpu")
    for path in sorted((root / name / "images").iterdir()):
        array = np.asarray(nib.load(root / name / "masks" / path.name.replace(".nii", "_seg.nii")).dataobj)
        assert len(np.unique(array)) > 2
        assert np.mean(array != backend.mask(*load_volume(path))) < 1e-3


def test_only_the_largest_piece_of_the_named_organs_is_kept(root: Path) -> None:
    removed = 0
    for path in sorted((root / "volumes/masks").iterdir()):
        whole = np.asarray(nib.load(path).dataobj)
        kept = np.asarray(nib.load(root / "volumes/one_piece" / path.name).dataobj)
        np.testing.assert_array_equal(kept[whole != kept], 0)
        np.testing.assert_array_equal(kept == 2, whole == 2)
        for label in (1, 3):
            pieces, count = ndimage.label(whole == label, np.ones((3, 3, 3)))
            assert ndimage.label(kept == label, np.ones((3, 3, 3)))[1] == min(count, 1)
            assert np.count_nonzero(kept == label) == max(np.bincount(pieces.ravel())[1:], default=0)
        removed += np.count_nonzero(whole != kept)
    assert removed > 0


def test_voxels_without_a_value_are_taken_as_0(root: Path) -> None:
    zero, hole = (
        np.asarray(nib.load(root / f"volumes/holes_masks/{name}_seg.nii.gz").dataobj) for name in ("0", "nan")
    )
    assert len(np.unique(zero)) > 2
    np.testing.assert_array_equal(hole, zero)


@pytest.mark.parametrize(("name", "in_channels"), [("grey", 1), ("colour", 3), ("lite", 3)])
def test_a_picture_gets_a_mask_of_its_size_the_right_way_round(root: Path, name: str, in_channels: int) -> None:
    picture = root / name / "images/picture.png"
    mask = Image.open(root / name / "masks/picture_seg.png")
    assert mask.mode == "L"
    assert mask.size == Image.open(picture).size
    array = np.asarray(mask)
    assert len(np.unique(array)) > 2
    assert np.mean(array != reference_picture(picture, in_channels, name == "lite")) < 1e-3


@pytest.mark.parametrize("name", ["RGB", "RGBA", "LA", "palette", "turned"])
def test_a_grey_picture_is_read_as_it_is_meant_however_it_is_stored(root: Path, name: str) -> None:
    mask, expected = (Image.open(root / f"grey/masks/{stem}_seg.png") for stem in (name, "picture"))
    np.testing.assert_array_equal(np.asarray(mask), np.asarray(expected))


@pytest.mark.parametrize(
    ("kind", "pattern"), [("nii.gz", r"misspelt/\*\.nii\*"), ("png", r"misspelt/\*\.png"), ("deep", "found mode I;16")]
)
def test_a_folder_without_images_and_pixels_of_16_bits_are_refused(alone: Alone, kind: str, pattern: str) -> None:
    assert alone.refused[kind].returncode != 0
    assert re.search(pattern, alone.refused[kind].stderr)
    assert not (alone.root / "no_masks").exists()
