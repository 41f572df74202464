"""Nothing is dropped without being counted and named."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tskd.data.kinds.studies import image_of, make, prepare, refusal, said, save_picture, save_volume
from tskd.cli import main
from tskd.data import load_volume
from tskd.data.io.picture_header import open_picture
from tskd.errors import TskdError


def _pages(path: Path, *sizes: tuple[int, int]) -> None:
    first, *more = [Image.fromarray(np.full((h, w), k * 9, np.uint8)) for k, (w, h) in enumerate(sizes)]
    first.save(path, save_all=True, append_images=more)


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_a_file_of_several_pages_is_refused(tmp_path: Path, ending: str) -> None:
    _pages(tmp_path / f"a.{ending}", (9, 7), (9, 7), (9, 7))
    with pytest.raises(TskdError, match=r"one picture a file, found \d pages"):
        open_picture(tmp_path / f"a.{ending}")


def test_smaller_copies_of_the_first_page_are_a_pyramid(tmp_path: Path) -> None:
    _pages(tmp_path / "a.tif", (40, 20), (20, 10), (10, 5))
    assert open_picture(tmp_path / "a.tif").size == (40, 20)
    _pages(tmp_path / "b.tif", (40, 20), (20, 20))
    with pytest.raises(TskdError, match="2 pages"):
        open_picture(tmp_path / "b.tif")


def test_every_bit_of_a_packed_volume_counts(tmp_path: Path) -> None:
    """A flipped bit anywhere is an error or changes no voxel."""
    save_volume(tmp_path / "a.nii.gz", image_of(0))
    content = (tmp_path / "a.nii.gz").read_bytes()
    sound = load_volume(tmp_path / "a.nii.gz")[0]
    rng = np.random.default_rng(0)
    refused = 0
    for at in [*rng.integers(10, len(content), 60), len(content) - 6, len(content) - 2]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.nii.gz").write_bytes(damaged)
        try:
            found = load_volume(tmp_path / "b.nii.gz")[0]
        except TskdError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, sound)
    assert refused >= 60


def test_every_chunk_of_a_png_counts(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", image_of(0)[..., 0])
    content = (tmp_path / "a.png").read_bytes()
    for at in range(8, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 8
        (tmp_path / "b.png").write_bytes(damaged)
        with pytest.raises(TskdError, match=r"b\.png"):
            open_picture(tmp_path / "b.png")


def test_a_second_volume_behind_the_first_is_refused(tmp_path: Path) -> None:
    save_volume(tmp_path / "a.nii.gz", image_of(0))
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "b.nii").write_bytes(content + content)
    with pytest.raises(TskdError, match="bytes more"):
        load_volume(tmp_path / "b.nii")


def test_blank_slices_and_patients_of_whom_none_is_left_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path, "volumes")
    image = np.where(np.arange(4) < 3, image_of(0) * 0, image_of(0))
    for number in range(6):
        save_volume(folder / f"images/p{number}.nii.gz", (image + number * (image > 0)).astype(np.int16))
    text = said(caplog, prepare(folder, "volumes"))
    assert "3 training slices, 9 blank ones left out" in text


def test_files_of_other_spelling_in_a_folder_of_masks(tmp_path: Path) -> None:
    folder = make(tmp_path, "volumes")
    (folder / "masks/p1.nii.gz").rename(folder / "masks/P1.nii.gz")
    message = refusal(folder, "volumes")
    assert "P1" in message
    assert "p1" in message


def test_the_line_about_files_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path, "pictures")
    (folder / "images/thumbs.db").write_bytes(b"x")
    (folder / "images/older").mkdir()
    assert not main(["prepare", "images-masks", "--images", str(folder / "images"), "--masks", str(folder / "masks"),
                     "--labels", "nerve", "--output", str(tmp_path / "out")])  # fmt: skip
    out = capsys.readouterr().out
    assert re.search(r"files: 14 found, 12 used; not used: .*thumbs\.db.*", out)
    assert "older" in out


def test_columns_of_a_table_are_used_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "pictures")
    rows = ["image;label;scanner;age", *(f"images/p{k}.png;masks/p{k}.png;A;9" for k in range(6))]
    (folder / "table.csv").write_text("\n".join(rows))
    text = said(caplog, prepare(folder, "pictures", table=folder / "table.csv"))
    assert "2 columns of the table (scanner, age)" in text


def test_unlabelled_scans_of_test_patients_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "volumes")
    (folder / "more").mkdir()
    for number in range(6):
        save_volume(folder / f"more/p{number}_b.nii.gz", image_of(number + 50))
    text = said(caplog, prepare(folder, "volumes", unlabelled=folder / "more", group_pattern=r"p\d"))
    assert "3 scans without a mask of validation and test patients" in text
