"""The student stands alone: a shipped bundle segments where nothing of this project can be imported."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.bundles.standalone import (
    reference_mask,
    reference_picture,
    run_alone,
    segmentation,
    ship,
    write_picture,
    write_volumes,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders volumes, grey and colour, each with a shipped bundle, images/ and the masks that it gave."""
    root = tmp_path_factory.mktemp("standalone")
    for name in ("volumes", "grey", "colour"):
        (root / name / "images").mkdir(parents=True)
    write_volumes(root / "volumes/images")
    write_picture(root / "grey/images")
    write_picture(root / "colour/images", in_channels=3)
    volumes = ship(root / "volumes", "nii.gz")
    done = run_alone(
        segmentation(volumes, root / "volumes/images", root / "volumes/masks"),
        [*segmentation(volumes, root / "volumes/images", root / "volumes/one_piece"), "--largest_component", "[1, 3]"],
        segmentation(ship(root / "grey", "png"), root / "grey/images", root / "grey/masks"),
        segmentation(
            ship(root / "colour", "nii.gz", in_channels=3), root / "colour/images", root / "colour/masks",
            "inference_2d.json",
        ),
        cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return root


@pytest.mark.parametrize("module", ["common.cli", "peft", "transformers"])
def test_the_other_interpreter_cannot_import_the_project(tmp_path: Path, module: str) -> None:
    done = run_alone([module], cwd=tmp_path)
    assert done.returncode != 0
    assert "blocked by the test" in done.stderr


def test_volumes_get_masks_in_their_own_place(root: Path) -> None:
    paths = sorted((root / "volumes/images").iterdir())
    assert len(list((root / "volumes/masks").iterdir())) == len(paths) == 2
    for path in paths:
        image, mask = nib.load(path), nib.load(root / "volumes/masks" / path.name.replace(".nii", "_seg.nii"))
        assert mask.shape == image.shape
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
        array = np.asarray(mask.dataobj)
        assert len(np.unique(array)) > 2
        assert np.mean(array != reference_mask(path)) < 1e-3  # ties of the argmax may fall otherwise on another CPU


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


@pytest.mark.parametrize(("name", "in_channels"), [("grey", 1), ("colour", 3)])
def test_a_picture_gets_a_mask_of_its_size_the_right_way_round(root: Path, name: str, in_channels: int) -> None:
    picture = root / name / "images/picture.png"
    mask = Image.open(root / name / "masks/picture_seg.png")
    assert mask.mode == "L"
    assert mask.size == Image.open(picture).size
    array = np.asarray(mask)
    assert len(np.unique(array)) > 2
    assert np.mean(array != reference_picture(picture, in_channels)) < 1e-3
