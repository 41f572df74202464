"""A shipped bundle on the files of a clinic: each gets its own mask where it lies, or a line that says why not."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.bundle import ConfigWorkflow
from PIL import Image

from tests.bundles.standalone import reference_mask, ship, write_picture
from tskd.data import virtual_patient
from tskd.export.segment_files import mask_names
from tskd.networks.bundle_imports import bundle_imports

Segment = Callable[[Path, Path, Path], str]


@pytest.fixture
def segment() -> Segment:
    """Run a bundle's inference.json on a folder; what its process would end with."""

    def run(bundle: Path, images: Path, output: Path) -> str:
        with bundle_imports(bundle):
            workflow = ConfigWorkflow(
                str(bundle / "configs/inference.json"), workflow_type="infer", logging_file=False,
                bundle_root=str(bundle), dataset_dir=str(images), output_dir=str(output), device="cpu",
            )  # fmt: skip
            workflow.initialize()
            assert not workflow.check_properties()
            try:
                workflow.run()
            except SystemExit as end:
                return str(end.code)
            return ""

    return run


@pytest.fixture(scope="module")
def volumes_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship(tmp_path_factory.mktemp("volumes"), "nii.gz")


@pytest.fixture(scope="module")
def pictures_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship(tmp_path_factory.mktemp("pictures"), "png")


def _volume(number: int, slices: int = 3) -> tuple[np.ndarray, np.ndarray]:
    image, _, affine = virtual_patient(seed=5, number=number, image_size=40, num_slices=5)
    return image[:, 2:36, 1 : 1 + slices].astype(np.int16), affine


def _save(path: Path, array: np.ndarray, sform: np.ndarray, qform: np.ndarray | None = None, unit: str = "mm") -> None:
    image = nib.Nifti1Image(array, sform)
    image.set_sform(sform, 1)
    image.set_qform(sform if qform is None else qform, 1)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)


def test_volumes(tmp_path: Path, volumes_bundle: Path, segment: Segment, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = tmp_path / "Fall#3 [2024]", tmp_path / "masks#3"
    images.mkdir()
    (array, affine), (other, _) = _volume(0), _volume(1)
    good = {
        "a.nii.gz": (array, affine, "mm"),
        "a.nii": (other, affine, "mm"),
        "one.nii.gz": (array[..., :1], affine, "mm"),
        "micron.nii.gz": (array, np.diag([1000, 1000, 1000, 1]) @ affine, "micron"),
        "empty.nii.gz": (np.where(np.arange(array.size).reshape(array.shape) % 501 == 7, array, 0), affine, "mm"),
    }
    for name, (voxels, place, unit) in good.items():
        _save(images / name, voxels.astype(np.int16), place, unit=unit)
    sheared = affine.copy()
    sheared[1, 2] += 3
    _save(images / "sheared.nii.gz", array, sheared, affine)
    _save(images / "forms.nii.gz", array, affine, affine @ np.diag([-1.0, 1, 1, 1]))
    content = bytearray(gzip.compress(nib.Nifti1Image(array, affine).to_bytes()))
    content[-6] ^= 1
    (images / "checksum.nii.gz").write_bytes(content)
    (images / "cut.nii.gz").write_bytes(content[:-300])
    (images / "load.nii.gz.part").write_bytes(content[:400])

    end = segment(volumes_bundle, images, masks)
    out = capsys.readouterr()
    assert "Traceback" not in out.err + end
    lines = end.splitlines()
    assert lines[0] == "4 of 9 files are not segmented:"
    for name, pattern in {
        "checksum": "CRC check failed",
        "cut": "Compressed file ended|end-of-stream",
        "forms": "sform and a qform that agree",
        "sheared": "sform and a qform that agree|right angles",
    }.items():
        (line,) = [line for line in lines if f"{name}.nii.gz" in line]
        assert re.search(pattern, line), line
    assert "10 found, 5 segmented, 4 failed; not used: 1 others (load.nii.gz.part)" in out.out
    names = {"a.nii.gz": "a.nii.gz", "a.nii": "a.nii"}
    assert {path.name for path in masks.iterdir()} == {
        f"{names.get(name, name.removesuffix('.nii.gz'))}_seg.nii.gz" for name in good
    }
    for name, (voxels, place, unit) in good.items():
        path = masks / f"{names.get(name, name.removesuffix('.nii.gz'))}_seg.nii.gz"
        mask = nib.load(path)
        assert mask.shape == voxels.shape
        millimetres = np.diag([0.001, 0.001, 0.001, 1]) @ place if unit == "micron" else place
        np.testing.assert_allclose(mask.affine, millimetres, atol=1e-4)
        assert mask.header.get_xyzt_units()[0] == "mm"
        second = sitk.ReadImage(str(path))
        assert second.GetSize() == voxels.shape
        corner = np.array(second.TransformIndexToPhysicalPoint([3, 1, 0])) * [-1, -1, 1]
        np.testing.assert_allclose(corner, (millimetres @ [3, 1, 0, 1])[:3], atol=1e-3)
        assert np.mean(np.asarray(mask.dataobj) != reference_mask(images / name)) < 2e-3


def test_pictures(tmp_path: Path, pictures_bundle: Path, segment: Segment, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    picture = Image.open(write_picture(images))
    picture.transpose(Image.Transpose.ROTATE_180).save(images / "picture.jpg", quality=95)
    grey = np.asarray(picture)
    Image.fromarray(grey.astype(np.uint16) * 200).save(images / "deep.png")
    Image.fromarray(grey).save(images / "pages.png", save_all=True, append_images=[Image.fromarray(255 - grey)])
    Image.fromarray(np.dstack([grey, grey // 2])).save(images / "glass.png")
    content = (images / "picture.png").read_bytes()
    (images / "cut.png").write_bytes(content[:-60])
    (images / "two.png").write_bytes(content + content)
    (images / "notes.txt").write_text("x")
    end = segment(pictures_bundle, images, masks)
    out = capsys.readouterr()
    assert "Traceback" not in out.err + end
    lines = end.splitlines()
    assert lines[0] == "5 of 7 files are not segmented:"
    for name, pattern in {
        "deep.png": "8 bits a channel", "pages.png": "2 pages", "glass.png": "opaque", "cut.png": "readable image",
        "two.png": "bytes after it",
    }.items():  # fmt: skip
        (line,) = [line for line in lines if name in line]
        assert re.search(pattern, line), line
    assert "1 others (notes.txt)" in out.out
    one, other = (np.asarray(Image.open(masks / f"picture.{ending}_seg.png")) for ending in ("png", "jpg"))
    assert one.shape == other.shape == grey.shape
    assert len(list(masks.iterdir())) == 2
    assert (one != other).any()


def test_a_failure_in_the_run_costs_that_file_alone(
    tmp_path: Path, pictures_bundle: Path, segment: Segment, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of ignite that has failed would be gone on with by the next one, which then ends at once."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    first = write_picture(images)
    for name in ("a", "c", "e"):
        (images / f"{name}.png").write_bytes(first.read_bytes())
    first.unlink()
    for name in ("b", "d"):
        Image.new("L", (1, 1), 9).save(images / f"{name}.png")  # MONAI has no writer for a mask of one pixel
    colours = np.asarray(Image.open(images / "a.png").convert("RGB")) // np.array([1, 2, 3], np.uint8)
    Image.fromarray(colours).save(images / "f.png")
    lines = segment(pictures_bundle, images, masks).splitlines()
    assert lines[0] == "2 of 6 files are not segmented:"
    assert [Path(line.split(": ")[0]).name for line in lines[1:]] == ["b.png", "d.png"]
    assert {path.name for path in masks.iterdir()} == {f"{name}_seg.png" for name in "acef"}
    said = capsys.readouterr()
    assert "6 found, 4 segmented, 2 failed" in said.out
    (warning,) = [line for line in said.err.splitlines() if line.startswith("warning")]
    assert warning.endswith("f.png: a picture in colour, where the network has learned from grey ones")


def test_names_of_masks_are_unique_in_any_case_of_letters() -> None:
    files = ["a.png", "A.jpg", "a.png.png", "b.v2.nii.gz", "c.nii", "d"]
    names = mask_names(files)
    assert len({name.lower() for name in names.values()}) == len(files)
    assert (names["b.v2.nii.gz"], names["c.nii"], names["a.png"]) == ("b.v2", "c", "a.png")


def test_the_scripts_are_whole_and_name_no_other_package(volumes_bundle: Path) -> None:
    text = "".join(path.read_text() for path in (volumes_bundle / "scripts").iterdir())
    assert not re.search(r"^\s*(from|import) tskd", text, re.MULTILINE)
    for name in re.findall(r"^\s*from scripts\.(\w+) import", text, re.MULTILINE):
        assert (volumes_bundle / "scripts" / f"{name}.py").is_file()


def test_nothing_is_read_before_the_run(tmp_path: Path, pictures_bundle: Path, segment: Segment) -> None:
    """Servers initialise a bundle without any image."""
    (tmp_path / "bad.png").write_bytes(b"no picture")
    end = segment(pictures_bundle, tmp_path, tmp_path / "masks")
    assert end.startswith("1 of 1 files are not segmented:")
