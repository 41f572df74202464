"""Small studies of six patients as pictures, NIfTI volumes or DICOM series, to be damaged, and what is said of them."""

import gzip
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tskd.data import checks, datalist, prepare_images_masks, prepare_volumes_masks
from tskd.data.phantom.dicom_writer import write_series
from tskd.errors import TskdError

KINDS = ("pictures", "volumes", "dicom")
AFFINE = np.array([[-2.0, 0, 0, 12], [0, -1.5, 0, 9], [0, 0, 4, 3], [0, 0, 0, 1]])
SHAPE = (9, 7, 4)  # of a volume; pictures are 9 columns by 7 rows


def image_of(number: int) -> np.ndarray:
    """Grey values that no other patient has, with one bright corner: [X, Y, Z] int16."""
    values = np.random.default_rng(number).integers(20, 120, SHAPE).astype(np.int16)
    values[0, 0] = 200
    return values


def label_of(number: int) -> np.ndarray:
    """The structure lies at the first corner, so that any turn or mirror moves it."""
    label = np.zeros(SHAPE, np.uint8)
    label[:3, :2] = 1
    label[3, 0, : 2 + number % 2] = 1
    return label


def make(folder: Path, kind: str) -> Path:
    """Write images/ and masks/ of the patients p0 to p5."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(6):
        image, label, name = image_of(number), label_of(number), f"p{number}"
        if kind == "pictures":
            save_picture(folder / f"images/{name}.png", image[..., 0])
            save_picture(folder / f"masks/{name}.png", label[..., 0])
            continue
        if kind == "volumes":
            save_volume(folder / f"images/{name}.nii.gz", image)
        else:
            write_series(folder / f"images/{name}", image, AFFINE, f"id{number}", name)
        save_volume(folder / f"masks/{name}.nii.gz", label)
    return folder


def save_picture(path: Path, pixels: np.ndarray, **options: Any) -> None:
    """Pixels [columns, rows] as an 8-bit grey picture."""
    Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8).T)).save(path, **options)


def save_volume(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, **header: Any) -> None:
    """A volume with sform and qform of one geometry; `header` sets fields, or `qform=` another qform."""
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(header.pop("qform", affine), 1)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    fields = nib.Nifti1Header(content[:348])  # nibabel would correct some of them in an image
    for name, value in header.items():
        fields[name] = value
    content = fields.binaryblock + content[348:]
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def prepare(folder: Path, kind: str, labels: tuple[str, ...] = ("liver",), **options: Any) -> Path:
    """Run the preparation of a study as the command does, `tskd check` included."""
    function = prepare_images_masks if kind == "pictures" else prepare_volumes_masks
    sources = {} if "table" in options else {"images": folder / "images", "masks": folder / "masks"}
    shares = {"test": 0.34, "validation": 0.17} if "fold" not in options else {}
    path = function(folder / "data", list(labels), **{**sources, **shares, **options})
    checks.check(path)
    return path


def refusal(folder: Path, kind: str, **options: Any) -> str:
    """The message with which a study is refused."""
    with pytest.raises(TskdError) as caught:
        prepare(folder, kind, **options)
    return str(caught.value)


def said(caplog: pytest.LogCaptureFixture, dataset_file: Path) -> str:
    """All that a user reads of a preparation that went through: warnings and the lines about files and patients."""
    provenance = datalist.read(dataset_file)["provenance"]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return "\n".join([*lines, *(str(provenance.get(key)) for key in ("files", "groups", "split", "left_out"))])


def stored_labels(dataset_file: Path) -> dict[str, np.ndarray]:
    """Case -> its label as written, [X, Y] or [X, Y, Z]."""
    found = {}
    for _, entry in datalist.named_entries(datalist.read(dataset_file)):
        if "label" in entry:
            path = dataset_file.parent / entry["label"]
            is_picture = path.suffix == ".png"
            found[entry["case"]] = np.asarray(Image.open(path)).T if is_picture else np.asarray(nib.load(path).dataobj)
    return found
