"""A stored number is not the value: palettes, bits, scale factors and lookup tables."""

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.sequence import Sequence

from tests.tskd.data.kinds.studies import (
    SHAPE,
    image_of,
    label_of,
    make,
    prepare,
    refusal,
    save_picture,
    save_volume,
    stored_labels,
)
from tskd.cli import main
from tskd.data import checks, datalist, load_volume
from tskd.data.io.image_files import mask_values, read_image
from tskd.errors import TskdError

DRAWN = label_of(0)[..., 0].T  # [rows, columns], 0 and 1


def _palette(path: Path, positions: np.ndarray, colours: list[int], **options: object) -> None:
    image = Image.fromarray(positions.astype(np.uint8), "P")
    image.putpalette(colours)
    image.save(path, **options)


def _grey(*values: int) -> list[int]:
    return [value for value in values for _ in range(3)]


# what the file holds, and what its values are
MEANT = {
    "white first in the palette": (lambda p: _palette(p, 1 - DRAWN, _grey(255, 0)), DRAWN * 255),
    "greys in another order": (lambda p: _palette(p, (DRAWN + 1) % 3, _grey(2, 0, 1)), DRAWN),
    "a coloured palette, black first": (lambda p: _palette(p, DRAWN, [0, 0, 0, 255, 0, 0]), DRAWN),
    "one bit": (lambda p: Image.fromarray(DRAWN * 255).convert("1").save(p), DRAWN.astype(bool)),
    "two bits": (lambda p: _few_bits(p, 2), DRAWN),
    "opaque alpha": (lambda p: Image.fromarray(np.dstack([DRAWN, DRAWN * 0 + 255])).save(p), DRAWN),
}


def _few_bits(path: Path, bits: int) -> None:
    """A grey PNG of 2 or 4 bits a pixel, which Pillow reads but does not write."""
    rows = b""
    for row in DRAWN:
        packed = 0
        for value in row:
            packed = packed << bits | int(value)
        free = -len(row) * bits % 8
        rows += b"\0" + (packed << free).to_bytes((len(row) * bits + free) // 8, "big")
    header = struct.pack(">IIBBBBB", DRAWN.shape[1], DRAWN.shape[0], bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(len(c).to_bytes(4, "big") + n + c + zlib.crc32(n + c).to_bytes(4, "big") for n, c in chunks)
    )


@pytest.mark.parametrize("what", MEANT)
def test_a_mask_is_what_a_viewer_shows(tmp_path: Path, what: str) -> None:
    save, values = MEANT[what]
    save(tmp_path / "mask.png")
    np.testing.assert_array_equal(mask_values(tmp_path / "mask.png"), values)


REFUSED = {
    "white first among colours": (lambda p: _palette(p, 1 - DRAWN, [255, 255, 255, 9, 0, 0]), "black at position 0"),
    "greys in a coloured palette": (
        lambda p: _palette(p, DRAWN, [*_grey(0, 3), 255, 0, 0]), "of which only greys are used",
    ),
    "half transparent": (lambda p: Image.fromarray(np.dstack([DRAWN, DRAWN * 100])).save(p), "opaque pixels"),
    "a transparent palette entry": (lambda p: _palette(p, DRAWN, [0, 0, 0, 9, 0, 0], transparency=0), "opaque pixels"),
    "colours": (lambda p: Image.fromarray(np.dstack([DRAWN, DRAWN, DRAWN * 2])).save(p), "found colours"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_mask_that_may_mean_two_things_is_refused(tmp_path: Path, what: str) -> None:
    save, words = REFUSED[what]
    save(tmp_path / "mask.png")
    with pytest.raises(TskdError, match=words):
        mask_values(tmp_path / "mask.png")


def test_a_single_transparent_pixel_is_not_called_none(tmp_path: Path) -> None:
    opaque = np.full((20, 20), 255, np.uint8)
    opaque[0, 0] = 0
    Image.fromarray(np.dstack([opaque, opaque])).save(tmp_path / "mask.png")
    with pytest.raises(TskdError, match="found less than 1% that are transparent in part or whole"):
        mask_values(tmp_path / "mask.png")


def test_palettes_that_differ_from_file_to_file_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path, "pictures")
    for number in range(6):
        red_first = [0, 0, 0, 255, 0, 0, 0, 255, 0]
        _palette(
            folder / f"masks/p{number}.png",
            DRAWN * 2 + 0,
            red_first if number != 3 else [0] * 3 + [0, 255, 0, 255, 0, 0],
        )
    assert "expected the palette of" in refusal(folder, "pictures", labels=("liver", "spleen"))


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (np.full((4, 5, 3), 40000, np.uint16), {}, "16 bits"),
        (np.full((4, 5), 700, np.int32), {}, "mode I"),
        (np.full((4, 5), 0.5, np.float32), {}, "mode F"),
    ],
)
def test_images_of_more_than_8_bits_are_refused(tmp_path: Path, array: np.ndarray, options: dict, words: str) -> None:
    path = tmp_path / "a.tif"
    if array.ndim == 3:  # Pillow cannot write it
        _sixteen_bit_rgb(path.with_suffix(".png"), array)
        path = path.with_suffix(".png")
    else:
        Image.fromarray(array).save(path, **options)
    with pytest.raises(TskdError, match=words):
        read_image(path, 1)


def _sixteen_bit_rgb(path: Path, array: np.ndarray) -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(len(c).to_bytes(4, "big") + n + c + zlib.crc32(n + c).to_bytes(4, "big") for n, c in chunks)
    )


def test_white_is_zero_is_inverted(tmp_path: Path) -> None:
    """TIFF's photometric interpretation 0, in which 255 is stored for black."""
    Image.fromarray(255 - DRAWN * 100).save(tmp_path / "a.tif", compression="raw")
    content = (tmp_path / "a.tif").read_bytes()
    tag = struct.pack("<HHII", 262, 3, 1, 1)  # photometric interpretation, a short, one of them: black is zero
    assert content.count(tag) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(tag, struct.pack("<HHII", 262, 3, 1, 0)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 1), DRAWN * 100)


@pytest.mark.parametrize(
    ("slope", "message"), [(1.0000153, None), (1.00001, None), (1.002, "scl_slope"), (0.5, "scl_slope")]
)
def test_a_scale_factor_of_a_mask(tmp_path: Path, slope: float, message: str | None) -> None:
    folder = make(tmp_path, "volumes")
    content = bytearray(nib.load(folder / "masks/p1.nii.gz").to_bytes())
    content[112:116] = np.float32(slope).tobytes()  # nibabel writes none for whole numbers
    (folder / "masks/p1.nii.gz").write_bytes(gzip.compress(bytes(content)))
    if message:
        assert message in refusal(folder, "volumes")
    else:
        assert set(np.unique(stored_labels(prepare(folder, "volumes"))["p1"])) <= {0, 1}


def _table(path: Path) -> None:
    for file in sorted(path.iterdir()):
        data = pydicom.dcmread(file)
        item = pydicom.Dataset()
        item.add_new(0x00283002, "US", [256, 0, 16])
        item.add_new(0x00283004, "LO", "US")
        item.add_new(0x00283006, "OW", np.arange(256, dtype="<u2")[::-1].tobytes())
        data.ModalityLUTSequence = Sequence([item])
        data.save_as(file)


def test_a_modality_table_is_looked_up(tmp_path: Path) -> None:
    folder = make(tmp_path, "dicom")
    _table(folder / "images/p1")
    np.testing.assert_array_equal(load_volume(folder / "images/p1")[0], 255 - image_of(1))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "places in a palette"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted grey"),
        ({"PresentationLUTShape": "INVERSE"}, "inverse presentation"),
        ({"BitsStored": 12, "HighBit": 15}, "lowest 12 bits"),
        ({"RescaleSlope": 0}, "RescaleSlope that is not 0"),
    ],
)
def test_dicom_values_that_mean_something_else_are_refused(tmp_path: Path, tags: dict, words: str) -> None:
    folder = make(tmp_path, "dicom")
    for file in sorted((folder / "images/p1").iterdir()):
        data = pydicom.dcmread(file)
        for name, value in tags.items():
            setattr(data, name, value)
        data.save_as(file)
    assert words in refusal(folder, "dicom")


def test_a_list_written_by_hand_and_score_refuse_what_preparation_would_read(tmp_path: Path) -> None:
    """The bundles' readers take stored numbers: a palette in another order would be an inverted mask."""
    rng = np.random.default_rng(0)
    lists: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    for number, section in enumerate(lists):
        entry = {"group": str(number), "case": str(number)}
        for key in ("image", "label", *["label_2nd"] * (section == "test")):
            entry[key] = f"{number}_{key}.png"
            save_picture(tmp_path / entry[key], rng.integers(0, 200, SHAPE[:2]) if key == "image" else DRAWN.T)
        lists[section].append(entry)
    header = {"name": "a", "modality": "US", "channels": 1, "labels": {"0": "background", "1": "nerve"}}
    datalist.write(tmp_path / "dataset.json", {**header, **lists})
    checks.check(tmp_path / "dataset.json")
    score = ["score", str(tmp_path / "dataset.json"), "--prediction-key", "label_2nd", "--method", "second",
             "--output", str(tmp_path / "scored")]  # fmt: skip
    assert not main(score)
    _palette(tmp_path / "2_label_2nd.png", 1 - DRAWN, _grey(1, 0))
    with pytest.raises(TskdError, match=r"2_label_2nd\.png: expected stored numbers that are the values shown"):
        checks.check(tmp_path / "dataset.json")
    assert main(score)


def test_score_reads_a_scale_factor_near_1_as_1(tmp_path: Path) -> None:
    lists: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    entry = {"group": "a", "case": "a"}
    for key in ("image", "label", "label_2nd"):
        entry[key] = f"{key}.nii.gz"
        save_volume(tmp_path / entry[key], image_of(0) if key == "image" else label_of(0))
    save_volume(tmp_path / "label_2nd.nii.gz", label_of(0) * np.float32(1.0000153))
    lists["test"].append(entry)
    header = {"name": "a", "modality": "CT", "channels": 1, "labels": {"0": "background", "1": "liver"}}
    datalist.write(tmp_path / "dataset.json", {**header, **lists})
    out = tmp_path / "scored"
    assert not main(
        [
            "score",
            str(tmp_path / "dataset.json"),
            "--prediction-key",
            "label_2nd",
            "--method",
            "x",
            "--output",
            str(out),
        ]
    )
    assert ",dice,1.0" in (out / "metrics.csv").read_text()
