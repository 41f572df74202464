"""Side by side: every check of pictures, volumes and DICOM series, with its words, or why there is none.

A cell is a function that damages a sound study so that the check must fire, or why there is nothing to check.
"""

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.tskd.data.kinds.studies import AFFINE, KINDS, image_of, label_of, make, prepare, refusal, said
from tests.tskd.data.kinds.studies import save_picture as picture
from tests.tskd.data.kinds.studies import save_volume as volume
from tskd.data.phantom.dicom_writer import write_series

Cell = Callable[[Path], object] | str
MASKS_ARE_NIFTI = "masks of DICOM series are NIfTI volumes: the column before"
LABEL = label_of(1)


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def _append(path: Path) -> None:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"more"))
    else:
        path.write_bytes(path.read_bytes() + b"more")


def _dicom(folder: Path, **tags: object) -> None:
    for path in sorted((folder / "images/p1").iterdir()):
        data = pydicom.dcmread(path)
        for name, value in tags.items():
            setattr(data, name, value(data) if callable(value) else value)
        data.save_as(path)


def _tilted(folder: Path) -> None:
    for path in sorted((folder / "images/p1").iterdir()):
        data = pydicom.dcmread(path)
        x, y, z = map(float, data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y + 0.4 * z, z]
        data.save_as(path)


def _sheared() -> np.ndarray:
    affine = AFFINE.copy()
    affine[1, 2] += 2
    return affine


def _alike_dicom(folder: Path) -> None:
    shutil.rmtree(folder / "images/p1")
    write_series(folder / "images/p1", image_of(0), AFFINE, "another id", "another")


TABLE: list[tuple[str, str, Cell, Cell, Cell]] = [
    # what is wrong, the words that say so, in pictures, in volumes, in DICOM series
    (
        "a damaged file",
        r"readable (image|NIfTI file)|readable pixels|pixels of one frame",
        lambda f: _flip(f / "images/p1.png", -20),
        lambda f: _flip(f / "images/p1.nii.gz", -6),
        lambda f: _dicom(f, PixelData=lambda d: d.PixelData[:-20]),
    ),
    (
        "data after the end",
        r"bytes after it|bytes more|found more",
        lambda f: _append(f / "images/p1.png"),
        lambda f: _append(f / "images/p1.nii.gz"),
        lambda f: _dicom(f, PixelData=lambda d: d.PixelData * 2),
    ),
    (
        "several images in a file",
        r"2 pages|3 dimensions|2 frames",
        lambda f: _pages(f / "images/p1.png"),
        lambda f: volume(f / "images/p1.nii.gz", np.stack([image_of(1)] * 2, -1)),
        lambda f: _dicom(f, NumberOfFrames=2),
    ),
    (
        "numbers that are not what is shown",
        r"8 bits a channel|one number a voxel|MONOCHROME2",
        lambda f: Image.fromarray(image_of(1)[..., 0].T.astype(np.uint16) * 100).save(f / "images/p1.png"),
        lambda f: volume(f / "images/p1.nii.gz", np.zeros(LABEL.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        lambda f: _dicom(f, PhotometricInterpretation="MONOCHROME1"),
    ),
    (
        "255 with two meanings",
        r"expected one meaning of 255|0 and 255 side by side",
        lambda f: picture(f / "masks/p1.png", LABEL[..., 0] * 255),
        lambda f: volume(f / "masks/p1.nii.gz", LABEL * 255),
        MASKS_ARE_NIFTI,
    ),
    (
        "a label of another size",
        r"size of its image",
        lambda f: picture(f / "masks/p1.png", LABEL[1:, :, 0]),
        lambda f: volume(f / "masks/p1.nii.gz", LABEL[1:]),
        lambda f: volume(f / "masks/p1.nii.gz", LABEL[1:]),
    ),
    (
        "a label in another place",
        r"EXIF orientation 6|corner 4.0 mm away",
        lambda f: _exif(f / "images/p1.png"),
        lambda f: volume(f / "masks/p1.nii.gz", LABEL, _moved()),
        lambda f: volume(f / "masks/p1.nii.gz", LABEL, _moved()),
    ),
    (
        "values without a name",
        r"class indices 0 to 1",
        lambda f: picture(f / "masks/p1.png", LABEL[..., 0] * np.arange(1, 10).reshape(-1, 1)),
        lambda f: volume(f / "masks/p1.nii.gz", LABEL * 3),
        MASKS_ARE_NIFTI,
    ),
    (
        "label values between whole numbers",
        r"one channel, found colours|whole numbers",
        lambda f: Image.fromarray(np.dstack([LABEL[..., 0].T * k for k in (1, 2, 1)])).save(f / "masks/p1.png"),
        lambda f: volume(f / "masks/p1.nii.gz", LABEL.astype(np.float32) * 0.7),
        MASKS_ARE_NIFTI,
    ),
    (
        "one value everywhere",
        r"the value \S+ everywhere",
        lambda f: picture(f / "images/p1.png", np.full((9, 7), 5)),
        lambda f: volume(f / "images/p1.nii.gz", np.full(LABEL.shape, 5, np.int16)),
        lambda f: _dicom(f, PixelData=lambda d: b"\5\0" * (len(d.PixelData) // 2)),
    ),
    (
        "values that are no numbers",
        r"finite intensities",
        "pixels of 8 bits are whole numbers",
        lambda f: volume(f / "images/p1.nii.gz", np.where(LABEL, np.nan, image_of(1)).astype(np.float32)),
        "stored values are whole numbers, and a slope that is no number is refused (test_values)",
    ),
    (
        "axes that are not at right angles",
        r"right angles|tilted gantry",
        "a picture has no axes in space",
        lambda f: volume(f / "images/p1.nii.gz", image_of(1), _sheared(), qform_code=0),
        _tilted,
    ),
    (
        "two geometries in a file",
        r"sform and a qform that agree",
        "a picture has no axes in space",
        lambda f: volume(f / "images/p1.nii.gz", image_of(1), qform=AFFINE @ np.diag([-1.0, 1, 1, 1])),
        "a series has one orientation, the same in every file (test_dicom_series)",
    ),
    (
        "an image twice, in two lists",
        r"identical images|under one code",
        lambda f: [shutil.copy(f / "images/p0.png", f / f"images/p{k}.png") for k in (1, 2, 3, 4, 5)],
        lambda f: shutil.copy(f / "images/p0.nii.gz", f / "images/p1.nii.gz"),
        _alike_dicom,
    ),
    (
        "an image without a mask",
        r"each image",
        lambda f: (f / "masks/p1.png").unlink(),
        lambda f: (f / "masks/p1.nii.gz").unlink(),
        lambda f: (f / "masks/p1.nii.gz").unlink(),
    ),
]  # fmt: skip


def _pages(path: Path) -> None:
    first, second = Image.new("L", (9, 7)), Image.new("L", (9, 7), 9)
    first.save(path, save_all=True, append_images=[second])


def _exif(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


def _moved() -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += 4
    return affine


CELLS = [
    pytest.param(kind, words, cell, id=f"{what}-{kind}")
    for what, words, *cells in TABLE
    for kind, cell in zip(KINDS, cells, strict=True)
    if not isinstance(cell, str)
]


@pytest.mark.parametrize(("kind", "words", "damage"), CELLS)
def test_each_check_holds(tmp_path: Path, kind: str, words: str, damage: Callable[[Path], object]) -> None:
    folder = make(tmp_path / "study", kind)
    damage(folder)
    options = {"group_pattern": r"p\d"} if "identical" in words and kind == "pictures" else {}
    message = refusal(folder, kind, **options)
    assert re.search(words, message), message
    if "under one code" not in words and "each image" not in words:
        assert "p1" in message, message


def test_a_check_that_is_missing_says_why() -> None:
    for what, _, *cells in TABLE:
        assert all(callable(cell) or len(cell) > 20 for cell in cells), what


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_study_goes_through_without_a_warning(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path / "study", kind)
    text = said(caplog, prepare(folder, kind))
    assert text.startswith("12 found, 12 used"), text
    assert "counts as a patient of its own" in text


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_used_is_counted_and_named(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path / "study", kind)
    for name in ("notes.txt", "p9.nrrd", ".hidden", "p8.jp2"):
        (folder / "images" / name).write_bytes(b"x")
    if kind == "dicom":
        (folder / "images/p1/report.pdf").write_bytes(b"x")
    text = said(caplog, prepare(folder, kind))
    for name in ("notes.txt", "p9.nrrd", ".hidden", "p8.jp2", *["report.pdf"] * (kind == "dicom")):
        assert name in text, text
    assert "12 used" in text or kind == "dicom"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_study_leaves_no_dataset_behind(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path / "study", kind)
    mask = folder / f"masks/p1.{'png' if kind == 'pictures' else 'nii.gz'}"
    mask.write_bytes(mask.read_bytes()[:-30])
    assert mask.name in refusal(folder, kind)
    assert not (folder / "data/dataset.json").exists()
